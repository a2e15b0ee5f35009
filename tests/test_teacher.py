"""Asking: no answer is paid for twice, lost, or bought beyond the budget."""

import json
import subprocess
import sys
import textwrap
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import durable, table, teacher
from ckd_jax.errors import UserError
from ckd_jax.journal import Journal
from ckd_jax.methods import Model, Outputs

CLASSES = 4


class Split(NamedTuple):
  images: np.ndarray
  labels: np.ndarray
  ids: np.ndarray
  fingerprint: str


@pytest.fixture
def split() -> Split:
  images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), np.uint8)
  return Split(
    images=images,
    labels=np.zeros(40, np.int32),
    ids=np.asarray([f"train_{row}" for row in range(40)]),
    fingerprint="f00d",
  )


def answers(images: np.ndarray) -> np.ndarray:
  """What the black box of these tests says: means of four corners."""
  flat = images.reshape(len(images), -1).astype(np.float32)
  return np.stack([part.mean(1) for part in np.array_split(flat, 4, 1)], 1)


class Counting:
  """A black box that keeps a list of what it was asked."""

  def __init__(self, answer=answers):
    self.answer, self.calls, self.requests = answer, 0, 0
    self.guard = threading.Lock()

  def __call__(self, images):
    with self.guard:
      self.calls += len(images)
      self.requests += 1
    return self.answer(images)


@pytest.fixture
def black_box(monkeypatch):
  """Puts a function where `from_callable` finds it."""

  def make(function, **options):
    monkeypatch.setattr(sys.modules[__name__], "box", function, raising=False)
    options = {"retries": 0, "back_off": 0.001, **options}
    return teacher.from_callable(f"{__name__}:box", **options)

  return make


def build(asked, split, wanted, path, budget=None, **options):
  options = {"part_size": 8, **options}
  return teacher.build(
    asked,
    split,
    wanted,
    table_path=path,
    dataset_name="pets",
    class_names=tuple("abcd"),
    num_classes=CLASSES,
    budget=len(wanted) if budget is None else budget,
    **options,
  )


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
  found = table.rows(read, split.ids[order[:25]], CLASSES).logits
  np.testing.assert_allclose(found, answers(split.images[order[:25]]), 1e-3)
  assert read.info["calls"] == 25 and read.info["missing"] == []
  assert table.check(tmp_path / "t", split)[1]


def test_call_budget_plus_one_is_never_made(tmp_path, split, black_box):
  box = Counting()
  asked = black_box(box)
  with pytest.raises(teacher.BudgetExceeded, match="call 13 was not made"):
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
    read.outputs.logits, answers(split.images[:20]), 1e-3
  )


def test_a_dead_callable_loses_nothing(tmp_path, split, black_box):
  def dies(images):
    if (images == split.images[11]).all():
      raise ConnectionError("no credit left")
    return answers(images)

  box = Counting(dies)
  with pytest.raises(UserError, match=r"failed 2 times.*no credit"):
    build(black_box(box, retries=1), split, range(20), tmp_path / "t")
  assert box.calls == 13
  box = Counting()
  _, paid, repeated = build(black_box(box), split, range(20), tmp_path / "t")
  assert (box.calls, paid, repeated) == (9, 12, 0)


def test_back_off_and_rate(monkeypatch, black_box, split):
  now, naps = [0.0], []

  def sleep(seconds):
    naps.append(seconds)
    now[0] += seconds

  monkeypatch.setattr(time, "sleep", sleep)
  monkeypatch.setattr(time, "monotonic", lambda: now[0])

  def broken(images):
    raise OSError("x")

  asked = black_box(broken, retries=3, back_off=2.0)
  with pytest.raises(UserError):
    asked.ask(split.images[:1])
  assert naps == [2.0, 4.0, 8.0]
  naps.clear()
  asked = black_box(answers, requests_per_second=4)
  for _ in range(5):
    asked.ask(split.images[:1])
  np.testing.assert_allclose(naps, [0, 0.25, 0.25, 0.25, 0.25])


BAD_ANSWERS = {
  "shape": (lambda x: answers(x)[:, :3], r"shape \(1, 3\), not \(1, 4\)"),
  "nan": (lambda x: answers(x) * np.nan, "NaN"),
  "inf": (lambda x: answers(x) * 0 + np.inf, "NaN or .inf"),
  "words": (lambda x: [["a"] * 4], "not answer with numbers"),
  "ragged": (lambda x: [[1, 2], [3]], "not answer with numbers"),
  "none": (lambda x: None, "shape|numbers"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_unusable_answers_are_not_stored(tmp_path, split, black_box, case):
  function, message = BAD_ANSWERS[case]
  with pytest.raises(UserError, match=message):
    build(black_box(function), split, range(3), tmp_path / "t")
  # It may have cost money, so asking again is counted as a repetition.
  _, paid, repeated = build(black_box(answers), split, range(3), tmp_path / "t")
  assert (paid, repeated) == (3, 1)


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
    black_box(box, retries=1).ask(split.images[:1])
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
  ids, images = split.ids, split.images
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
    "t", lambda x, needs: seen.append(x) or Outputs(answers(x))
  )
  read, *_ = build(
    asked, split, range(5), tmp_path, view="augmented", view_seed=1, pad=2
  )
  np.testing.assert_array_equal(seen[0], one[:5])
  assert (read.info["view_seed"], read.info["view_pad"]) == (1, 2)


def _network() -> tuple[Model, dict, dict]:
  """A linear network whose every output tells its input apart."""

  def apply(params, state, images, *, train, key=None):
    assert not train
    embedding = images.mean(axis=(1, 2))
    logits = embedding @ params["w"] + state["shift"][None]
    return Outputs(logits, embedding, (images, images[:, ::2])), state

  params = {"w": jnp.arange(12.0).reshape(3, 4) / 7}
  return Model(None, apply), params, {"shift": jnp.ones(4)}


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def _expected(images):
  x = (images.astype(np.float64) / 255 - MEAN) / np.asarray(STD)
  return x, x.mean((1, 2)) @ (np.arange(12.0).reshape(3, 4) / 7) + 1


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_sharded_and_padded_answers(split, batch_size):
  """The same on one device, on four, and whatever the batch."""
  model, params, state = _network()
  needs = frozenset({"logits", "embedding", "maps"})
  images, logits = _expected(split.images[:13])
  alone = jax.make_mesh(
    (1,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:1],
  )
  assert jax.device_count() == 4
  for mesh in (None, alone):
    asked = teacher.from_model(
      "linear",
      model,
      params,
      state,
      mean=MEAN,
      std=STD,
      batch_size=batch_size,
      mesh=mesh,
      needs=needs,
    )
    found = asked.ask(split.images[:13])
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.maps[1], images[:, ::2], atol=1e-5)
    assert found.maps[0].shape == (13, 6, 6, 3) and found.preactivations == ()
    bare = asked.ask(split.images[:2], needs=frozenset({"logits"}))
    assert bare.embedding is None and bare.maps == ()


def test_one_shape_is_compiled(split):
  traces = []
  model, params, state = _network()

  def apply(params, state, images, **options):
    traces.append(images.shape)
    return model.apply(params, state, images, **options)

  asked = teacher.from_model(
    "linear",
    Model(None, apply),
    params,
    state,
    mean=MEAN,
    std=STD,
    batch_size=16,
  )
  for count in (1, 16, 40):
    asked.ask(split.images[:count])
  assert traces == [(16, 6, 6, 3)]


def test_a_name_tells_weights_and_normalisation_apart():
  model, params, state = _network()

  def name(params=params, state=state, mean=MEAN):
    return teacher.from_model(
      "linear", model, params, state, mean=mean, std=STD
    ).name

  names = {
    name(),
    name(params={"w": params["w"].at[0, 0].add(1e-6)}),
    name(state={"shift": state["shift"] + 1}),
    name(mean=(0.5, 0.4, 0.31)),
  }
  assert len(names) == 4 and name() in names


def test_white_box_table(tmp_path, split):
  """Embeddings and maps are kept; a logits-only run may share the table."""
  model, params, state = _network()
  asked = teacher.from_model(
    "linear", model, params, state, mean=MEAN, std=STD, batch_size=8
  )
  every = frozenset({"logits", "embedding", "maps"})
  build(asked, split, range(10), tmp_path / "t", needs=every)
  read, paid, _ = build(asked, split, range(20), tmp_path / "t")
  assert paid == 10
  images, logits = _expected(split.images[:20])
  np.testing.assert_allclose(read.outputs.logits, logits, rtol=2e-3, atol=2e-3)
  np.testing.assert_allclose(read.outputs.maps[0], images, atol=2e-3)
  assert read.info["fields"] == ["embedding", "logits", "maps_0", "maps_1"]
  build(asked, split, range(10), tmp_path / "u")
  with pytest.raises(UserError, match="holds logits, and maps is needed"):
    needs = frozenset({"maps"})
    build(asked, split, range(10), tmp_path / "u", needs=needs)
  with pytest.raises(UserError, match="gives no preactivations"):
    needs = frozenset({"preactivations"})
    build(asked, split, range(10), tmp_path / "v", needs=needs)


def test_a_local_teacher_that_fails_midway(tmp_path, split):
  calls = []

  def ask(images, needs):
    calls.append(len(images))
    if len(calls) == 3:
      raise MemoryError("device")
    return Outputs(answers(images))

  asked = teacher.Teacher("local", ask)
  with pytest.raises(MemoryError):
    build(asked, split, range(40), tmp_path)
  assert len(table.read(tmp_path).ids) == 16
  _, paid, repeated = build(asked, split, range(40), tmp_path)
  assert (paid, repeated) == (24, 0)
  assert sum(calls) == 48  # 8 of them came to nothing


# For every k: forks a build, kills it at its k-th fsync or call, builds again.
KILLING = """
import json, os, signal, sys, numpy as np
sys.path.insert(0, {tests!r})
import test_teacher as t
from ckd_jax import table, teacher

rng = np.random.default_rng(0)
split = t.Split(
  rng.integers(0, 256, (40, 6, 6, 3), np.uint8), np.zeros(40, np.int32),
  np.asarray([f"train_{{row}}" for row in range(40)]), "f00d")
fsync, stage, asked_times = os.fsync, {stage!r}, [0]

def box(images):
  with open(path + ".calls", "a") as file:
    file.write("x" * len(images))
  asked_times[0] += 1
  if asked_times[0] == kill_call:
    os.kill(os.getpid(), signal.SIGKILL)
  return t.answers(images)

t.box = box
local = teacher.Teacher("local", lambda x, needs: t.Outputs(box(x)))
asked = local if {local} else teacher.from_callable("test_teacher:box")

def child(kill_at):
  global kill_call
  count = [0]
  kill_call = kill_at if stage == "call" else 0
  def dying(number):
    count[0] += 1
    if count[0] == kill_at and stage == "before":
      os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)
    if count[0] == kill_at and stage == "after":
      os.kill(os.getpid(), signal.SIGKILL)
  os.fsync = dying
  _, paid, repeated = t.build(asked, split, range(6), path, part_size=4)
  with open(path + ".paid", "w") as file:
    json.dump([paid, repeated], file)
  os._exit(0)

def run(kill_at):
  pid = os.fork()
  if not pid:
    child(kill_at)
  return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

results = []
for kill_at in range(1, 200):
  path = os.path.join({folder!r}, f"{{kill_at}}")
  status = run(kill_at)
  if status == 0:
    break
  assert status == -signal.SIGKILL, status
  assert run(0) == 0
  calls = os.path.getsize(path + ".calls")
  info = table.read_info(path)
  digest = [p["sha256"] for p in info["parts"]]
  results.append([calls, info["calls"], info["repeated_calls"], digest])
  assert table.check(path, split)[1]
json.dump(results, open(os.path.join({folder!r}, "results"), "w"))
"""


@pytest.mark.parametrize(
  ("stage", "local", "at_risk"),
  [
    ("before", False, 1),
    ("after", True, 4),
    pytest.param("call", False, 1, marks=pytest.mark.slow),
    pytest.param("before", True, 4, marks=pytest.mark.slow),
    pytest.param("after", False, 1, marks=pytest.mark.slow),
    pytest.param("call", True, 4, marks=pytest.mark.slow),
  ],
)
def test_kill_at_every_write(tmp_path, stage, local, at_risk):
  """However a build dies, the next one pays exactly for the rest."""
  script = KILLING.format(
    tests=str(__file__.rpartition("/")[0]),
    folder=str(tmp_path),
    stage=stage,
    local=local,
  )
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "results").read_text())
  assert len(results) >= {"call": 2 if local else 6}.get(stage, 12)
  for calls, counted, repeated, digest in results:
    assert counted == 6
    assert 6 <= calls <= 6 + repeated <= 6 + at_risk
    assert digest == results[0][3]  # a kill leaves no trace in the answers
    if stage == "call":
      assert calls == 6 + repeated > 6


SHARING = """
import sys, time
sys.path.insert(0, {tests!r})
import numpy as np
import test_teacher as t
from ckd_jax import teacher

def box(images):
  time.sleep(0.02)
  with open({folder!r} + "/calls", "a") as file:
    file.write("x")
  return t.answers(images)

t.box = box
rng = np.random.default_rng(0)
split = t.Split(
  rng.integers(0, 256, (40, 6, 6, 3), np.uint8), np.zeros(40, np.int32),
  np.asarray([f"train_{{row}}" for row in range(40)]), "f00d")
asked = teacher.from_callable("test_teacher:box", concurrency=2)
start = int(sys.argv[1])
read, paid, _ = t.build(
  asked, split, range(start, start + 20), {folder!r} + "/t")
print("paid", paid)
"""


def test_two_processes_pay_once(tmp_path):
  script = SHARING.format(
    tests=str(__file__.rpartition("/")[0]), folder=str(tmp_path)
  )
  (tmp_path / "t").mkdir()
  with durable.lock(tmp_path / "t"):  # so that both arrive before either asks
    processes = [
      subprocess.Popen(
        [sys.executable, "-c", script, start],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for start in ("0", "5")
    ]
    waiting = [process.stderr.readline() for process in processes]
  outputs = [process.communicate()[0] for process in processes]
  assert all(line.startswith("waiting: ") for line in waiting), waiting
  assert [process.returncode for process in processes] == [0, 0]
  paid = sorted(int(text.split("paid ")[1]) for text in outputs)
  assert paid == [5, 20]
  assert (tmp_path / "calls").read_text() == "x" * 25


def test_a_read_only_table_is_enough(tmp_path, split, black_box, monkeypatch):
  asked = black_box(answers)
  build(asked, split, range(9), tmp_path / "t")

  def refuse(*_):
    raise UserError("read-only")

  for name in ("write", "append", "lock"):
    monkeypatch.setattr(durable, name, refuse)
  read, paid, _ = build(asked, split, range(9), tmp_path / "t")
  assert len(read.ids) == 9 and paid == 0
  with pytest.raises(UserError, match="read-only"):
    build(asked, split, range(10), tmp_path / "t")


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
  def full(number):
    raise OSError(28, "No space left on device")

  durable.write(tmp_path / "a", b"old")
  monkeypatch.setattr(durable.os, "fsync", full)
  with pytest.raises(UserError, match=r"cannot write .*/a: No space left"):
    durable.write(tmp_path / "a", b"new")
  assert (tmp_path / "a").read_bytes() == b"old"
  assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_damaged_journal_is_refused(tmp_path):
  file = tmp_path / "journal.jsonl"
  journal = Journal(file)
  journal.ask(["a", "b"])
  journal.answer(["a"], np.ones((1, 4)))
  whole = file.read_bytes()
  file.write_bytes(whole + b'{"ask": ["tor')  # cut by a kill
  journal = Journal(file)
  assert list(journal.answers) == ["a"] and journal.asked["b"] == 1
  journal.ask(["b"])
  assert Journal(file).repeated(["a", "b"]) == 1
  position = whole.index(b'"logits": "') + 15
  broken = whole[:position] + b"Q" + whole[position + 1 :]
  file.write_bytes(broken)
  with pytest.raises(UserError, match=r"line 2 of .* is damaged"):
    Journal(file)


@pytest.mark.torch
def test_public_checkpoint(shared):
  pytest.importorskip("torch")
  pytest.importorskip("ckd_jax.torch_weights")
  file = next((shared / "teachers/cifar10").glob("resnet20*.th"))
  asked = teacher.from_torch(
    file,
    "resnet20_a",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    batch_size=8,
  )
  data = np.load(shared / "data/cifar10_small.npz")
  found = asked.ask(data["x_test"][:10])
  assert asked.classes == 10
  np.testing.assert_allclose(found.logits[0, 0], -5.30968, atol=1e-4)
  assert (found.logits.argmax(1) == data["y_test"][:10]).mean() >= 0.8


def _save_run(folder, drop=(), **changes) -> tuple[Model, dict, dict]:
  """An untrained network as a run would leave it; JSON texts in `changes`."""
  from ckd_jax import export, models

  model = models.get("cnn", 5)
  params, state = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  facts = {"model": "cnn", "classes": 5, "mean": MEAN, "std": STD}
  facts |= {"image_shape": (8, 8, 3)}
  metadata = {key: json.dumps(value) for key, value in facts.items()} | changes
  kept = {key: value for key, value in params.items() if key not in drop}
  export.save(folder / export.STUDENT, kept, state, metadata)
  return model, params, state


def test_our_run_as_teacher(tmp_path, split):
  model, params, state = _save_run(tmp_path)
  asked = teacher.from_run(tmp_path, batch_size=4)
  x = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
  scaled = (x / 255 - np.asarray(MEAN)) / np.asarray(STD)
  direct, _ = model.apply(params, state, jnp.float32(scaled), train=False)
  np.testing.assert_allclose(
    asked.ask(x).logits, direct.logits, rtol=1e-4, atol=1e-4
  )
  assert asked.classes == 5 and asked.name.startswith("run:cnn:")


@pytest.mark.parametrize(
  ("key", "text"),
  [
    *(("classes", x) for x in ("x", '"x"', "[]", "null", "0", "Infinity")),
    *(("mean", x) for x in ("3", "null", "{}", "[0.5]", '["a", 1, 2]')),
    *(("std", x) for x in ("3", "[1, 1, 0]", "[[1], [1], [1]]")),
    *(("image_shape", x) for x in ("8", "null", "[8, 8]", '["a", 8, 3]')),
  ],
)
def test_a_run_that_does_not_say_what_it_is(tmp_path, key, text):
  _save_run(tmp_path, **{key: text})
  with pytest.raises(UserError, match=r"student\.safetensors lacks"):
    teacher.from_run(tmp_path)


def test_a_run_with_the_tensors_of_another_network(tmp_path):
  wrong = r"student.safetensors are not those of {} \(.*\): give"
  for drop, changes, name in (
    (("fc",), {}, "cnn"),
    ((), {"classes": "7"}, "cnn"),
    ((), {"model": '"resnet8"'}, "resnet8"),
    ((), {"image_shape": "[8, 8, 1]", "mean": "[0]", "std": "[1]"}, "cnn"),
  ):
    _save_run(tmp_path, drop, **changes)
    with pytest.raises(UserError, match=wrong.format(name)) as caught:
      teacher.from_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pruned_copy_lacks_the_smallest_weights_of_every_layer():
  def apply(params, state, images, *, train, key=None):
    flat = images.reshape(len(images), -1)
    hidden = flat @ params["first"]["weight"] + params["first"]["bias"][None]
    return Outputs(hidden @ params["last"]), state

  draw = np.random.default_rng(0)
  params = {
    "first": {
      "weight": draw.normal(size=(108, 7)).astype("f4"),
      "bias": np.full(7, 1e-6, "f4"),
    },
    "last": 100 * draw.normal(size=(7, CLASSES)).astype("f4"),
  }
  whole = teacher.from_model(
    "net", Model(None, apply), params, {}, mean=(0.0,) * 3, std=(1.0,) * 3
  )
  copy = teacher.pruned(whole, 0.1)
  for layer in (
    lambda tree: tree["first"]["weight"],
    lambda tree: tree["last"],
  ):
    before, after = layer(whole.params), layer(copy.params)
    gone = after == 0
    assert gone.sum() == round(0.1 * before.size) > 0
    assert np.abs(before[gone]).max() < np.abs(before[~gone]).min()
    np.testing.assert_array_equal(after[~gone], before[~gone])
  np.testing.assert_array_equal(
    copy.params["first"]["bias"], params["first"]["bias"]
  )
  assert copy.name.startswith(f"{whole.name}:pruned:")
  images = draw.integers(0, 256, (5, 6, 6, 3), np.uint8)
  assert not np.allclose(copy.ask(images).logits, whole.ask(images).logits)
  same = teacher.pruned(whole, 0.0).ask(images).logits
  np.testing.assert_array_equal(same, whole.ask(images).logits)
