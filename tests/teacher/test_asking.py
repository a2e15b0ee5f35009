"""Asking: no answer is lost, or bought beyond the budget."""

import sys
import threading
import time

import numpy as np
import pytest

from ckd_jax import table, teacher
from ckd_jax.errors import UserError
from ckd_jax.table import Answers
from ckd_jax.teacher import asker, pace
from tests.helpers.asking import Counting, answers, build


def test_only_missing_rows_are_asked(tmp_path, split, black_box):
  box = Counting()
  asked = black_box(box)
  order = np.random.default_rng(3).permutation(40)
  _, paid, repeated = build(asked, split, order[:10], tmp_path / "t")
  assert (box.calls, paid, repeated) == (10, 10, 0)
  read, paid, _ = build(asked, split, order[:25], tmp_path / "t")
  assert (box.calls, paid) == (25, 15)
  read, paid, _ = build(asked, split, order[5:20], tmp_path / "t")
  assert (box.calls, paid) == (25, 0)
  np.testing.assert_array_equal(read.ids, split.ids[order[:25]])
  found = read.rows(split.ids[order[:25]]).values
  np.testing.assert_allclose(found, answers(split.inputs[order[:25]]), 1e-3)
  assert read.info["calls"] == 25 and read.info["missing"] == []
  assert table.check(tmp_path / "t", split)[1]


def test_call_budget_plus_one_is_never_made(tmp_path, split, black_box):
  box = Counting()
  asked = black_box(box)
  with pytest.raises(teacher.BudgetExceeded, match="call 13 was not made"):
    build(asked, split, range(20), tmp_path / "t", budget=12)
  assert box.calls == 12
  for _ in range(2):  # the answers in the journal are spent, too
    with pytest.raises(teacher.BudgetExceeded):
      build(asked, split, range(20), tmp_path / "t", budget=12)
    assert box.calls == 12
  # What was bought is kept: the right budget pays for nothing again.
  _, paid, repeated = build(asked, split, range(12), tmp_path / "t")
  assert (box.calls, paid, repeated) == (12, 4, 0)
  report, is_clean = table.check(tmp_path / "t")
  assert not is_clean and report["missing_ids"] == 8
  with pytest.raises(teacher.BudgetExceeded):
    build(asked, split, range(13), tmp_path / "t", budget=12)
  box.calls = 0
  several = black_box(box, request_size=5, concurrency=3)
  with pytest.raises(teacher.BudgetExceeded):
    build(several, split, range(40), tmp_path / "u", budget=12)
  assert 8 <= box.calls <= 12  # threads race for what is left


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_flaky_callable_is_retried(tmp_path, split, black_box, concurrency):
  tries = {}
  guard = threading.Lock()
  at_once = [0, 0]

  def flaky(images):
    key = images.tobytes()
    with guard:
      at_once[0] += 1
      at_once[1] = max(at_once)
      tries[key] = tries.get(key, 0) + 1
      fails = tries[key] < 3
    time.sleep(0.005)
    with guard:
      at_once[0] -= 1
    if fails:
      raise ConnectionError("busy")
    return answers(images).tolist()

  asked = black_box(flaky, retries=2, concurrency=concurrency, request_size=3)
  read, paid, repeated = build(asked, split, range(20), tmp_path / "t")
  assert (paid, repeated) == (20, 0)
  assert set(tries.values()) == {3}
  assert at_once[1] == min(concurrency, 3)  # 8 images are 3 requests
  np.testing.assert_array_equal(read.ids, split.ids[:20])
  np.testing.assert_allclose(
    read.answers.values, answers(split.inputs[:20]), 1e-3
  )


def test_a_dead_callable_loses_nothing(tmp_path, split, black_box):
  def dies(images):
    if (images == split.inputs[11]).all():
      raise ConnectionError("no credit left")
    return answers(images)

  box = Counting(dies)
  with pytest.raises(UserError, match=r"failed 2 times.*no credit.*may bill"):
    build(black_box(box, retries=1), split, range(20), tmp_path / "t")
  assert box.calls == 13
  box = Counting()
  _, paid, repeated = build(black_box(box), split, range(20), tmp_path / "t")
  assert (box.calls, paid, repeated) == (9, 12, 0)


def test_back_off_and_rate(tmp_path, monkeypatch, black_box, split):
  now, naps = [0.0], []

  def sleep(seconds, ending):
    naps.append(round(seconds, 6))
    now[0] += seconds

  monkeypatch.setattr(asker, "pause", sleep)
  monkeypatch.setattr(pace, "pause", sleep)
  monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])

  def broken(images):
    raise OSError("x")

  asked = black_box(broken, retries=3, back_off=2.0)
  with pytest.raises(UserError, match=r"failed 4 times \(OSError: x\)"):
    build(asked, split, range(1), tmp_path / "t")
  assert [nap for nap in naps if nap] == [2.0, 4.0, 8.0]
  naps.clear()
  asked = black_box(answers, requests_per_second=4)
  build(asked, split, range(5), tmp_path / "u")
  assert naps == [0, 0.25, 0.25, 0.25, 0.25]


BAD_ANSWERS = {
  "shape": (lambda x: answers(x)[:, :3], r"shape \(1, 3\), not \(1, 4\)"),
  "nan": (lambda x: answers(x) * np.nan, "NaN"),
  "inf": (lambda x: answers(x) * 0 + np.inf, "NaN or .inf"),
  "too large": (lambda x: np.float64(1e43) + answers(x), "NaN or .inf"),
  "words": (lambda x: [["a"] * 4], "not answer with numbers"),
  "ragged": (lambda x: [[1, 2], [3]], "not answer with numbers"),
  "none": (lambda x: None, "shape|numbers"),
  "complex": (
    lambda x: answers(x) + 1j,
    "not answer with numbers.*complex",
  ),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_unusable_answers_are_not_stored(
  tmp_path, split, black_box, capsys, case
):
  function, message = BAD_ANSWERS[case]
  with pytest.raises(UserError, match=message):
    build(black_box(function), split, range(3), tmp_path / "t")
  assert not capsys.readouterr().err
  # It may have cost money, so it counts against the budget, for good, and
  # asking again is counted as a repetition.
  for _ in range(2):
    box = Counting()
    with pytest.raises(
      teacher.BudgetExceeded, match=r"call 4 was .*1 calls br"
    ):
      build(black_box(box), split, range(3), tmp_path / "t")
    assert box.calls <= 2
  _, paid, repeated = build(
    black_box(answers), split, range(3), tmp_path / "t", max_calls=4
  )
  assert (paid, repeated) == (3, 1)


def test_refused_answers_are_not_forgotten_between_starts(
  tmp_path, split, black_box, capsys
):
  """A teacher that answers NaN, 20 starts, a budget of 10: 10 calls."""
  box = Counting(lambda images: answers(images) * np.nan)
  for _ in range(20):
    with pytest.raises(UserError, match=r"NaN|call 11 was not made"):
      build(black_box(box), split, range(10), tmp_path / "t")
  assert box.calls == 10
  said = capsys.readouterr().out
  assert "1 of them were asked about before, and no usable answer" in said
  # A part that is settled does not settle what was wasted.
  box = Counting()
  build(black_box(box), split, range(1), tmp_path / "t", max_calls=11)
  with pytest.raises(teacher.BudgetExceeded, match="10 calls brought no usabl"):
    build(black_box(box), split, range(10), tmp_path / "t")
  assert box.calls == 1


def test_a_callable_that_exits_has_failed(tmp_path, split, black_box):
  box = Counting(lambda images: sys.exit(3))
  with pytest.raises(UserError, match=r"failed 2 times \(SystemExit: 3\)"):
    build(black_box(box, retries=1), split, range(3), tmp_path / "t")
  _, paid, repeated = build(black_box(answers), split, range(3), tmp_path / "t")
  assert (box.calls, paid, repeated) == (2, 3, 0)

  def interrupted(images):
    raise KeyboardInterrupt

  box = Counting(interrupted)
  with pytest.raises(KeyboardInterrupt):
    black_box(box, retries=1).ask(split.inputs[:1])
  assert box.calls == 1


def test_a_module_that_exits_is_one_line(tmp_path, monkeypatch):
  (tmp_path / "exits_at_once.py").write_text("raise SystemExit(0)\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match=r"cannot import.*SystemExit"):
    teacher.from_callable("exits_at_once:ask")


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("nothing", "write package.module:function"),
    ("no_such_module:f", "cannot import 'no_such_module'"),
    ("json:load_", "did you mean 'load'"),
    ("json:decoder", "no function 'decoder'"),
  ],
)
def test_bad_specs(spec, message):
  with pytest.raises(UserError, match=message):
    teacher.from_callable(spec)


def test_another_purpose_is_refused(tmp_path, split, black_box):
  asked = black_box(answers)
  build(asked, split, range(5), tmp_path / "t")
  other = split._replace(fingerprint="beef")
  with pytest.raises(UserError, match=r"fingerprint 'f00d'.*'beef'"):
    build(asked, other, range(5), tmp_path / "t")
  with pytest.raises(UserError, match=r"teacher 'callable.*'somebody'"):
    build(asked._replace(name="somebody"), split, range(5), tmp_path / "t")
  with pytest.raises(UserError, match=r"view 'clean'.*'augmented'"):
    build(asked, split, range(5), tmp_path / "t", view="augmented")
  with pytest.raises(UserError, match="black box and gives logits only"):
    needs = frozenset({"logits", "embedding"})
    build(asked, split, range(5), tmp_path / "t", needs=needs)
  only_read = teacher.Teacher(name=asked.name, ask=None)
  assert build(only_read, split, range(4), tmp_path / "t")[1:] == (0, 0)
  with pytest.raises(UserError, match="no teacher to ask"):
    build(only_read, split, range(6), tmp_path / "t")


def test_an_unfinished_first_part_already_names_its_teacher(
  tmp_path, split, black_box
):
  with pytest.raises(teacher.BudgetExceeded):
    build(black_box(answers), split, range(8), tmp_path / "t", budget=2)
  with pytest.raises(UserError, match="teacher"):
    other = black_box(answers)._replace(name="somebody")
    build(other, split, range(8), tmp_path / "t")


def test_augmented_view(tmp_path, split):
  ids, images = split.ids, split.inputs
  one = teacher.augmented(images, ids, seed=1, pad=2)
  order = np.random.default_rng(0).permutation(40)
  shuffled = teacher.augmented(images[order], ids[order], seed=1, pad=2)
  np.testing.assert_array_equal(shuffled, one[order])
  assert (teacher.augmented(images, ids, seed=2, pad=2) != one).any()
  flips = 0
  corners = set()
  for image, view in zip(images, one, strict=True):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    matches = [
      (top, left, flip)
      for top in range(5)
      for left in range(5)
      for flip in (1, -1)
      if (padded[top : top + 6, left : left + 6][:, ::flip] == view).all()
    ]
    assert len(matches) == 1
    corners.add(matches[0][:2])
    flips += matches[0][2] == -1
  assert 10 < flips < 30 and len(corners) > 12

  seen = []
  asked = teacher.Teacher(
    "t", lambda x, needs: seen.append(x) or Answers(answers(x))
  )
  read, *_ = build(
    asked, split, range(5), tmp_path, view="augmented", view_seed=1, pad=2
  )
  np.testing.assert_array_equal(seen[0], one[:5])
  assert (read.info["view_seed"], read.info["view_pad"]) == (1, 2)
