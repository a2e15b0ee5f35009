"""The answers of a run: sources, costs, refusals."""

import contextlib
import pathlib

import numpy as np
import pytest

from ckd_jax import methods, table
from ckd_jax.errors import UserError
from ckd_jax.run import logger, train
from tests.helpers import runs
from tests.helpers.arrays import softmax
from tests.helpers.runs import LINEAR, QUICK, from_table, questions, read, run


def test_the_teacher_is_asked_about_the_training_images_alone(digits, tmp_path):
  budget, fraction = 37, 0.29
  shared = f"--config.table.path={tmp_path / 'table'}"
  arg = QUICK + (
    "method=kd,teacher.source=callable,teacher.path=tests.helpers.runs:oracle,"
    f"batch_size=4,steps=2,val_fraction={fraction}"
  )
  questions.clear()
  first = run(tmp_path / "first", LINEAR, shared, arg=f"{arg},budget={budget}")
  # ceil((1 - fraction) * budget), in whole numbers.
  calls = -(-(100 - round(100 * fraction)) * budget // 100)
  assert first["teacher_calls"] == len(questions) == calls
  assert first["paid_calls"] == calls and first["repeated_calls"] == 0
  assert first["teacher_test_accuracy"] is None
  assert first["evaluation_calls"] == 0
  asked = table.read(tmp_path / "table")
  assert len(set(asked.ids)) == len(asked.ids) == calls
  pixels = dict(zip(digits.train.ids, digits.train.inputs, strict=True))
  assert {pixels[name].tobytes() for name in asked.ids} == set(questions)

  # Nothing is paid twice, whatever else changes.
  for place, other in enumerate(
    (
      f"seed=7,budget={budget}",
      f"budget={budget - 10}",
      f"method=supervised,budget={budget}",
    )
  ):
    again = run(tmp_path / str(place), LINEAR, shared, arg=f"{arg},{other}")
    assert again["paid_calls"] == 0
    assert again["params_sha256"] != first["params_sha256"]
  assert len(questions) == calls

  more = run(
    tmp_path / "more", LINEAR, shared, arg=f"{arg},budget={budget + 10}"
  )
  assert more["paid_calls"] == more["teacher_calls"] - calls
  assert len(questions) == more["teacher_calls"]


def test_validation_images_are_never_asked_about(paid, digits):
  from ckd_jax.data import budget

  chosen = budget.select(1438, budget=100, val_fraction=0.2, seed=0)
  asked = table.read(paid[0])
  assert set(asked.ids) == set(digits.train.ids[chosen.train])
  assert not set(asked.ids) & set(digits.train.ids[chosen.validation])
  assert paid[1]["teacher_calls"] == len(asked.ids) == 80


def test_a_live_teacher_makes_no_table(teacher_run, tmp_path):
  summary = run(
    tmp_path / "run",
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    "--config.teacher.live",
    arg=QUICK + "method=kd,teacher.source=checkpoint",
  )
  assert summary["live_calls"] == 20 * 16
  assert summary["teacher_calls"] == summary["paid_calls"] == 0
  assert summary["table_path"] is None
  assert not list(tmp_path.rglob("table*"))


@pytest.mark.parametrize(
  "live", [pytest.param(live, marks=pytest.mark.slow) for live in (False, True)]
)
def test_r2kd_has_a_second_teacher(teacher_run, tmp_path, live):
  """From two tables, or both inside the step; the copy is free."""
  workdir = tmp_path / "run"
  summary = run(
    workdir,
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    f"--config.teacher.live={live}",
    arg=QUICK + "method=r2kd,teacher.source=checkpoint",
  )
  if live:
    assert summary["live_calls"] == 2 * 20 * 16 * 2  # networks, branches
    other = tmp_path / "other"  # another copy, which says other things
    run(
      other,
      LINEAR,
      f"--config.teacher.path={teacher_run}",
      "--config.teacher.live",
      "--config.teacher.pruned=0.9",
      arg=QUICK + "method=r2kd,teacher.source=checkpoint",
    )
    values = [
      logger.read_metrics(folder / "metrics.jsonl")[0]["value"]
      for folder in (workdir, other)
    ]
    assert values[0] != values[1]
    return
  assert summary["pruned_calls"] == summary["teacher_calls"]
  whole, copy = (
    table.read(workdir / name) for name in ("table", "table-pruned")
  )
  assert copy.info["teacher"].startswith(f"{whole.info['teacher']}:pruned:")
  np.testing.assert_array_equal(copy.ids, whole.ids)
  gap = np.abs(copy.answers.values - whole.answers.values).mean()
  assert 0 < gap < np.abs(whole.answers.values).mean()


def test_a_live_teacher_is_compared_with_too(teacher_run, tmp_path):
  """ckd, whose offset is not fitted where answers are not kept."""
  summary = run(
    tmp_path,
    LINEAR,
    "--config.teacher.source=checkpoint",
    f"--config.teacher.path={teacher_run}",
    "--config.teacher.live",
    "--config.hyper.offset=none",
    arg=QUICK + "method=ckd",
  )
  assert summary["live_calls"] == 20 * 16 and summary["offset"] is None


def test_a_clean_live_teacher_says_what_its_table_says(
  teacher_run, paid, tmp_path
):
  """Without augmentation both see the same images; fp16 is the difference."""
  live = run(
    tmp_path / "live",
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    "--config.teacher.live",
    arg=QUICK + "method=kd,teacher.source=checkpoint",
  )
  assert live["val_accuracy"] == pytest.approx(paid[1]["val_accuracy"], abs=5.1)
  losses = [
    [
      line["loss"]
      for line in logger.read_metrics(folder / "metrics.jsonl")
      if "loss" in line
    ]
    for folder in (tmp_path / "live", paid[0].parent)
  ]
  np.testing.assert_allclose(*losses, rtol=2e-3)


def offline(tmp_path, digits, change, **extra) -> pathlib.Path:
  """A file of answers about all training images."""
  random = np.random.default_rng(0)
  logits = random.normal(size=(len(digits.train.labels), 10))
  logits += 5 * np.eye(10)[digits.train.labels]
  np.savez(tmp_path / "answers.npz", logits=change(logits), **extra)
  return tmp_path / "answers.npz"


def test_answers_that_rule_classes_out(digits, tmp_path):
  def rule_out(logits):
    return np.where(logits < -1.5, -np.inf, logits)

  file = offline(tmp_path, digits, rule_out)
  flags = (LINEAR, f"--config.teacher.path={file}")
  arg = QUICK + "teacher.source=table,method="
  for method in ("ckd", "logit_mse"):
    with pytest.raises(UserError, match=r"rule.*-inf.*\bkd\b"):
      run(tmp_path / method, *flags, arg=arg + method)
  summary = run(tmp_path / "kd", *flags, arg=arg + "kd")
  losses = [
    line["loss"]
    for line in logger.read_metrics(tmp_path / "kd" / "metrics.jsonl")
    if "loss" in line
  ]
  assert np.isfinite(losses).all() and losses[-1] < losses[0]
  assert summary["teacher_calls"] == 80


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if "ckd" in name else pytest.mark.slow)
    for name in methods.working_with(frozenset({"logits"}))
  ],
)
def test_a_class_ruled_out_is_taken_or_refused_at_once(name, digits, tmp_path):
  file = offline(tmp_path, digits, lambda x: np.where(x < -1.5, -np.inf, x))
  with contextlib.ExitStack() as stack:
    if name in ("ckd", "logit_mse"):
      stack.enter_context(pytest.raises(UserError, match=r"rule.*-inf"))
    summary = run(
      tmp_path / "run",
      LINEAR,
      f"--config.teacher.path={file}",
      "--config.steps=2",
      "--config.teacher.pruned=0.0",
      arg=QUICK + f"teacher.source=table,method={name}",
    )
    assert summary["steps"] == 2


def test_a_black_box_cannot_answer_for_its_embedding(paid, tmp_path):
  flags, arg = from_table(paid, LINEAR, method="icd")
  with pytest.raises(UserError, match="embedding") as refused:
    run(tmp_path, *flags, arg=arg)
  named = str(refused.value).split(" without: ")[1]
  assert set(named.split(", ")) == set(
    methods.working_with(frozenset({"logits"}))
  )
  assert "ckd" in named and "icd" not in named.split(", ")


@pytest.mark.parametrize(
  "method", [pytest.param("ckd", marks=pytest.mark.slow), "kd"]
)
def test_probabilities_are_taken_and_said_once(
  method, digits, tmp_path, capsys
):
  file = offline(tmp_path, digits, softmax)
  summary = train.run(
    read(
      LINEAR,
      f"--config.teacher.path={file}",
      arg=QUICK + f"teacher.source=table,teacher.kind=probs,method={method}",
    ),
    tmp_path / "run",
  )
  said = capsys.readouterr().out
  assert said.count("log(max(p, 1e-8))") == 1
  assert "none: 80 answers of a table" in said
  assert table.read_info(tmp_path / "run" / "table")["kind"] == "probs"
  assert summary["train_agreement"] is not None


def test_a_test_table_is_an_evaluation_call(digits, tmp_path):
  file = offline(tmp_path, digits, lambda logits: logits)
  right = 10 * np.eye(10, dtype=np.float32)[digits.test.labels]
  right[:36] = np.roll(right[:36], 1, axis=1)
  np.savez(tmp_path / "test.npz", test_logits=right)
  summary = run(
    tmp_path / "run",
    LINEAR,
    f"--config.teacher.path={file}",
    f"--config.table.test_path={tmp_path / 'test.npz'}",
    arg=QUICK + "teacher.source=table,method=kd",
  )
  assert summary["evaluation_calls"] == 359
  assert summary["teacher_test_accuracy"] == pytest.approx(100 * 323 / 359)
  assert summary["teacher_calls"] == 80


def test_the_student_can_see_what_the_teacher_saw(teacher_run, tmp_path):
  """student_view=table: the augmented images, unchanged from step to step."""
  summary = run(
    tmp_path / "run",
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    "--config.teacher.view=augmented",
    "--config.student_view=table",
    arg=QUICK + "method=kd,teacher.source=checkpoint",
  )
  info = table.read_info(tmp_path / "run" / "table")
  assert info["view"] == "augmented" and info["view_seed"] == 0
  assert info["view_pad"] == 1
  fresh = run(
    tmp_path / "fresh",
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    f"--config.table.path={tmp_path / 'run' / 'table'}",
    "--config.teacher.view=augmented",
    arg=QUICK + "method=kd,teacher.source=checkpoint",
  )
  assert fresh["paid_calls"] == 0
  assert fresh["params_sha256"] != summary["params_sha256"]


def test_another_budget_is_not_bought_beside_half_of_one(tmp_path, monkeypatch):
  """No config.json is there before all answers are, to be compared with."""
  arg = QUICK + "method=kd,steps=5,budget=20,teacher.source=callable"
  arg += ",teacher.path=tests.helpers.runs:oracle,teacher.request_size=1"
  answer = runs.oracle

  def stopped(images):
    if len(questions) == 5:
      raise KeyboardInterrupt
    return answer(images)

  questions.clear()
  with monkeypatch.context() as patch:
    patch.setattr(runs, "oracle", stopped)
    with pytest.raises(KeyboardInterrupt):
      run(tmp_path / "run", LINEAR, arg=arg)
  assert len(questions) == 5
  with pytest.raises(UserError, match=r"answers about \d images that are not"):
    run(tmp_path / "run", LINEAR, arg=f"{arg},budget_seed=1")
  assert len(questions) == 5
  done = run(tmp_path / "run", LINEAR, arg=arg)
  assert done["teacher_calls"] == 16 and len(questions) == 16
