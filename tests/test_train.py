"""Whole runs on real digits: what they cost, write, repeat and refuse."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from ckd_jax import (
  checkpoint,
  data,
  errors,
  export,
  logger,
  main,
  models,
  table,
  train,
)
from ckd_jax import config as configuration
from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = ROOT / "configs" / "digits.py"
QUICK = (
  "budget=100,batch_size=16,steps=20,eval_every=10,checkpoint_every=10,"
  "log_every=1,"
)
LINEAR = "--config.student=test_train:linear"
CNN = "--config.student=cnn"


def linear(num_classes: int) -> Model:
  """A student that compiles in no time."""

  def init(key, images):
    size = images[0].size
    weight = jax.random.normal(key, (size, num_classes)) / size
    return {"weight": weight, "bias": jnp.zeros(num_classes)}, {}

  def apply(params, state, images, *, train, key=None):
    flat = images.reshape(len(images), -1)
    return Outputs(flat @ params["weight"] + params["bias"][None]), state

  return Model(init, apply)


questions = []  # one entry per image that `oracle` was asked about


def oracle(images):
  """A black box: uint8[n, 8, 8, 1] -> float[n, 10], from the pixels alone."""
  questions.extend(image.tobytes() for image in images)
  weight = np.random.default_rng(0).normal(size=(64, 10)) / 64
  return images.reshape(len(images), -1) @ weight


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
  """Runs share their compiled programs, so that this file takes a minute."""
  folder = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    folder = folder.parent  # of all workers
  names = {
    "jax_compilation_cache_dir": str(folder / "compiled"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in names.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def read(*flags, arg=""):
  return configuration.from_flags([f"--config={DIGITS}:{arg}", *flags])[0]


def run(workdir, *flags, arg="", draw=False) -> dict:
  """A short run; later flags win over earlier ones."""
  with contextlib.ExitStack() as stack:
    silent = io.StringIO()
    stack.enter_context(contextlib.redirect_stdout(silent))
    stack.enter_context(contextlib.redirect_stderr(silent))
    if not draw:  # half of the time of a short run
      stack.enter_context(mock.patch.object(logger, "curves"))
    return train.run(read(*flags, arg=arg), workdir)


def contents(folder) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="session")
def digits():
  return data.load("digits")


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory):
  """A trained teacher, as a finished run of ours."""
  workdir = tmp_path_factory.mktemp("teacher")
  summary = run(
    workdir,
    LINEAR,
    arg="method=supervised,teacher.source=none,budget=1438,val_fraction=0,"
    "steps=100,eval_every=100,checkpoint_every=100,batch_size=64",
  )
  assert summary["test_accuracy"] > 90
  return workdir


@pytest.fixture(scope="session")
def paid(teacher_run, tmp_path_factory):
  """A table that holds the teacher's answers about all of the 80 images."""
  folder = tmp_path_factory.mktemp("paid")
  summary = run(
    folder / "run",
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    arg=QUICK + "method=kd,teacher.source=checkpoint",
  )
  return folder / "run" / "table", summary


def from_table(paid, *flags, method="kd"):
  return (
    *flags,
    f"--config.teacher.path={paid[0]}",
  ), QUICK + f"method={method},teacher.source=table"


def interrupt_after(monkeypatch, last: int):
  """Ctrl-C while the numbers of a later step are being written."""
  log = logger.Logger.log

  def stop(self, step, **metrics):
    if step > last:
      raise KeyboardInterrupt
    log(self, step, **metrics)

  monkeypatch.setattr(logger.Logger, "log", stop)


GROUPS = ("--config.hyper.estimator=groups", "--config.hyper.max_groups=500")
PLATEAU = (
  "--config.schedule=plateau",
  "--config.schedule_hyper.patience=2",
  "--config.schedule_hyper.levels=3",
  "--config.steps=200",
  "--config.checkpoint_every=7",  # in the middle of simulated epochs
)
slow = pytest.mark.slow
RESUMED = [
  pytest.param(["supervised", LINEAR], id="supervised"),
  pytest.param(["kd", LINEAR], id="kd"),
  pytest.param(["ckd", LINEAR, *GROUPS], id="ckd groups"),
  pytest.param(["ckd", CNN], id="ckd all"),
  pytest.param(["ckd", LINEAR, *PLATEAU], id="plateau"),
  pytest.param(["supervised", CNN], id="supervised cnn", marks=slow),
  pytest.param(["kd", CNN], id="kd cnn", marks=slow),
  pytest.param(["ckd", CNN, *GROUPS], id="ckd groups cnn", marks=slow),
  pytest.param(["ckd", CNN, *PLATEAU], id="plateau cnn", marks=slow),
]


@pytest.mark.parametrize("typed", RESUMED)
def test_a_resumed_run_ends_the_same_bit_for_bit(
  typed, paid, tmp_path, monkeypatch
):
  method, *flags = typed
  is_plateau = "--config.schedule=plateau" in flags
  flags, arg = from_table(paid, *flags, method=method)
  whole = run(tmp_path / "whole", *flags, arg=arg)
  stops = (12, whole["steps"] - 1) if is_plateau else (12,)
  for last in stops:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      interrupt_after(patch, last)
      run(tmp_path / "parts", *flags, arg=arg)
    lines = logger.read_metrics(tmp_path / "parts" / "metrics.jsonl")
    assert lines[-1]["step"] == last
  assert not (tmp_path / "parts" / "summary.json").exists()
  parts = run(tmp_path / "parts", *flags, arg=arg)
  for key in ("params_sha256", "test_accuracy", "val_accuracy", "best_step"):
    assert whole[key] == parts[key], key
  assert whole["offset"] == parts["offset"]
  metrics = [tmp_path / name / "metrics.jsonl" for name in ("whole", "parts")]
  assert metrics[0].read_bytes() == metrics[1].read_bytes()
  rates = [
    line["learning_rate"]
    for line in logger.read_metrics(metrics[0])
    if "learning_rate" in line
  ]
  if is_plateau:  # else this would say nothing about levels
    assert len(set(rates[:12])) < len(set(rates)), rates


@pytest.mark.slow
def test_a_killed_command_resumes_bit_for_bit(paid, tmp_path):
  flags, arg = from_table(paid, CNN, "--config.steps=2000")
  arg += ",checkpoint_every=100,eval_every=100"
  whole = run(tmp_path / "whole", *flags, arg=arg)
  parts = tmp_path / "parts"
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "ckd_jax.main",
      f"--config={DIGITS}:{arg}",
      *flags,
      f"--workdir={parts}",
    ],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 120
  while not (parts / "checkpoints" / "00000300" / "manifest.json").exists():
    assert time.monotonic() < deadline and process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (parts / "summary.json").exists()
  resumed = run(parts, *flags, arg=arg)
  assert resumed["params_sha256"] == whole["params_sha256"]
  assert (parts / "metrics.jsonl").read_bytes() == (
    tmp_path / "whole" / "metrics.jsonl"
  ).read_bytes()


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
  paid, tmp_path, monkeypatch
):
  flags, arg = from_table(paid, LINEAR, "--config.steps=30")
  whole = run(tmp_path / "whole", *flags, arg=arg)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 25)
    run(tmp_path / "parts", *flags, arg=arg)
  newest = tmp_path / "parts" / "checkpoints" / "00000020"
  file = max(newest.rglob("*"), key=lambda path: path.stat().st_size)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  restored = []
  restore = checkpoint.restore

  def spy(*args):
    restored.append(restore(*args)[0])
    return restore(*args)

  monkeypatch.setattr(checkpoint, "restore", spy)
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert restored == [10]
  assert parts["params_sha256"] == whole["params_sha256"]
  assert (tmp_path / "parts" / "metrics.jsonl").read_bytes() == (
    tmp_path / "whole" / "metrics.jsonl"
  ).read_bytes()


@pytest.fixture(scope="session")
def fitted(teacher_run, tmp_path_factory):
  """A run of ckd with a fitted offset, from a local teacher; and its folder."""
  workdir = tmp_path_factory.mktemp("fitted") / "run"
  summary = run(
    workdir,
    CNN,
    f"--config.teacher.path={teacher_run}",
    arg=QUICK + "teacher.source=checkpoint",
    draw=True,
  )
  return summary, workdir


TYPES = {
  "dataset": str,
  "student": str,
  "teacher": str,
  "method": str,
  "seed": int,
  "budget": int,
  "teacher_calls": int,
  "repeated_calls": int,
  "steps": int,
  "test_accuracy": float,
  "val_accuracy": float,
  "last_test_accuracy": float,
  "teacher_test_accuracy": float,
  "train_seconds": float,
  "images_per_second": float,
  "student_parameters": int,
  "params_sha256": str,
}


def test_a_run_directory_holds_what_is_promised(fitted):
  summary, workdir = fitted
  assert json.loads((workdir / "summary.json").read_text()) == summary
  for key, kind in TYPES.items():
    assert type(summary[key]) is kind, key
  for key in summary:
    if key.endswith("_accuracy"):
      assert 0 <= summary[key] <= 100, key
  # 359 images: a percentage is a multiple of 100 / 359, a fraction is not.
  hits = summary["test_accuracy"] * 359 / 100
  assert hits == pytest.approx(round(hits), abs=1e-6)
  assert summary["teacher_test_accuracy"] > 90
  assert summary["train_seconds"] > 0 and summary["images_per_second"] > 0
  assert summary["steps"] == 20
  assert set(summary["params_sha256"]) <= set("0123456789abcdef")
  names = {path.name for path in workdir.iterdir()}
  assert names >= {
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "curves.png",
    "table",
    "checkpoints",
    "student.safetensors",
  }
  assert (workdir / "table" / "table.json").exists()
  steps = [
    line["step"]
    for line in logger.read_metrics(workdir / "metrics.jsonl")
    if "loss" in line
  ]
  assert steps == list(range(1, 21))


def test_the_student_file_alone_gives_the_reported_accuracy(fitted, digits):
  """From the file and its metadata, with nothing of the run."""
  summary, workdir = fitted
  params, state, metadata = export.load(workdir / "student.safetensors")
  assert export.params_sha256(params, state) == summary["params_sha256"]
  count = sum(x.size for x in jax.tree.leaves(params))
  assert count == summary["student_parameters"]
  model = models.load(metadata["model"], int(metadata["classes"]))
  mean, std = (np.float32(json.loads(metadata[k])) for k in ("mean", "std"))
  images = (np.float32(digits.test.images) / 255 - mean) / std
  outputs, _ = model.apply(params, state, jnp.asarray(images), train=False)
  hits = np.asarray(outputs.logits).argmax(-1) == digits.test.labels
  assert summary["test_accuracy"] == 100 * hits.mean()
  assert json.loads(metadata["class_names"]) == list(digits.class_names)


def test_accuracies_are_reported_with_and_without_the_offset(
  fitted, teacher_run, tmp_path
):
  summary, _ = fitted
  both = summary["offset"]
  assert set(both) == {"none", "fit"}
  assert summary["test_accuracy"] == both["fit"]["test"]
  assert summary["val_accuracy"] == both["fit"]["val"]
  plain = run(
    tmp_path / "run",
    CNN,
    f"--config.teacher.path={teacher_run}",
    "--config.hyper.offset=none",
    arg=QUICK + "teacher.source=checkpoint",
  )
  # The offset changes which weights are reported, not how they are trained.
  assert plain["offset"] == both
  assert plain["test_accuracy"] == both["none"]["test"]
  assert both["none"]["test"] != both["fit"]["test"]
  assert plain["params_sha256"] != summary["params_sha256"]


def test_a_finished_run_is_shown_again_and_left_alone(
  fitted, teacher_run, capfd
):
  summary, workdir = fitted
  before = contents(workdir)
  argv = [
    f"--config={DIGITS}:{QUICK}teacher.source=checkpoint",
    CNN,
    f"--config.teacher.path={teacher_run}",
    f"--workdir={workdir}",
  ]
  assert errors.command(main.main, argv) == 0
  captured = capfd.readouterr()
  assert summary["params_sha256"] in captured.out
  assert f"{summary['test_accuracy']:.2f}" in captured.out
  assert captured.err == ""
  assert contents(workdir) == before


@pytest.mark.parametrize(
  ("flag", "says"),
  [
    ("--config.steps=30", "steps: 20 -> 30"),
    ("--config.optimizer.momentum=.8", "optimizer.momentum: 0.9 -> 0.8"),
    ("--config.hyper.offset=none", "hyper.offset: fit -> none"),
    ("--config.steps=0", "steps is 0"),
    ("--config.student=cn", "did you mean 'cnn'"),
  ],
)
def test_a_refused_command_changes_no_file_of_a_run(
  flag, says, fitted, teacher_run, capfd
):
  _, workdir = fitted
  before = contents(workdir)
  argv = [
    f"--config={DIGITS}:{QUICK}teacher.source=checkpoint",
    CNN,
    f"--config.teacher.path={teacher_run}",
    f"--workdir={workdir}",
    flag,
  ]
  assert errors.command(main.main, argv) == 2
  captured = capfd.readouterr()
  assert says in captured.err and len(captured.err.splitlines()) == 1
  assert contents(workdir) == before


def test_an_unfinished_run_is_not_taken_over_by_another_config(
  paid, tmp_path, monkeypatch
):
  flags, arg = from_table(paid, LINEAR)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 12)
    run(tmp_path, *flags, arg=arg)
  before = contents(tmp_path)
  with pytest.raises(UserError, match=r"steps: 20 -> 40.*--workdir"):
    run(tmp_path, *flags, "--config.steps=40", arg=arg)
  assert contents(tmp_path) == before


def test_the_teacher_is_asked_about_the_training_images_alone(digits, tmp_path):
  budget, fraction = 37, 0.29
  shared = f"--config.table.path={tmp_path / 'table'}"
  arg = QUICK + (
    "method=kd,teacher.source=callable,teacher.path=test_train:oracle,"
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
  pixels = dict(zip(digits.train.ids, digits.train.images, strict=True))
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
  from ckd_jax import budget

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


@pytest.mark.parametrize("log_every", [3, 1000])
def test_a_loss_that_is_no_number_is_never_saved(tmp_path, log_every):
  with pytest.raises(UserError, match=r"loss is (nan|inf) at step"):
    run(
      tmp_path,
      LINEAR,
      "--config.optimizer.learning_rate=1e30",
      "--config.schedule=constant",
      f"--config.log_every={log_every}",
      arg=QUICK + "method=supervised,teacher.source=none",
    )
  assert not (tmp_path / "checkpoints").exists()
  assert not (tmp_path / "summary.json").exists()


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


def softmax(logits):
  exp = np.exp(logits - logits.max(1, keepdims=True))
  return exp / exp.sum(1, keepdims=True)


@pytest.mark.parametrize("method", ["ckd", "kd"])
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
  assert capsys.readouterr().out.count("log(max(p, 1e-8))") == 1
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


def test_a_plateau_reloads_the_best_and_ends(paid, tmp_path, monkeypatch):
  """Levels, reloads and the end, seen from the states that pass by."""
  from ckd_jax import selection

  seen = []
  reload = selection.reload

  def spy(state, best, level):
    after = reload(state, best, level)
    flat = [np.asarray(x) for x in jax.tree.leaves(after.params["student"])]
    kept = [np.asarray(x) for x in jax.tree.leaves(best["params"])]
    assert all(map(np.array_equal, flat, kept))
    momentum = [
      [np.asarray(x) for x in jax.tree.leaves(s.optimizer)]
      for s in (state, after)
    ]
    assert all(map(np.array_equal, *momentum))
    assert any(np.any(x) for x in momentum[0])
    seen.append(float(after.level))
    return after

  monkeypatch.setattr(selection, "reload", spy)
  flags, arg = from_table(
    paid,
    LINEAR,
    "--config.schedule=plateau",
    "--config.schedule_hyper.patience=2",
    "--config.schedule_hyper.levels=3",
    "--config.optimizer.learning_rate=1",
    "--config.steps=5000",
  )
  summary = run(tmp_path / "run", *flags, arg=arg)
  np.testing.assert_allclose(seen, [0.1, 0.01], rtol=1e-5)
  lines = logger.read_metrics(tmp_path / "run" / "metrics.jsonl")
  val = [(x["step"], x["val_accuracy"]) for x in lines if "val_accuracy" in x]
  # A simulated epoch is 80 / 16 steps, whatever eval_every says.
  assert [number for number, _ in val] == list(
    range(5, summary["steps"] + 1, 5)
  )
  # By hand: the bar is the best so far, and 3 waits of 2 end the run.
  best, waited, level = -1.0, 0, 0
  for number, accuracy in val:
    waited = 0 if accuracy > best else waited + 1
    best = max(best, accuracy)
    if waited == 2:
      level, waited = level + 1, 0
    assert (level == 3) == (number == summary["steps"])
  assert summary["val_accuracy"] == best
  rates = {x["learning_rate"] for x in lines if "learning_rate" in x}
  np.testing.assert_allclose(sorted(rates), [0.01, 0.1, 1], rtol=1e-5)


def test_a_plateau_ends_at_its_last_epoch_too(paid, tmp_path):
  flags, arg = from_table(
    paid,
    LINEAR,
    "--config.schedule=plateau",
    "--config.schedule_hyper.max_epochs=3",
  )
  assert run(tmp_path, *flags, arg=arg)["steps"] == 15


def test_without_validation_the_last_weights_are_reported(paid, tmp_path):
  flags, arg = from_table(
    paid, LINEAR, "--config.val_fraction=0", "--config.budget=80"
  )
  with pytest.raises(UserError, match="no answer"):
    run(tmp_path / "other", *flags, arg=arg)  # other images than were paid for
  summary = run(
    tmp_path / "run",
    LINEAR,
    arg=QUICK + "method=supervised,teacher.source=none,val_fraction=0",
  )
  assert summary["val_accuracy"] is None
  assert summary["best_step"] == summary["steps"] == 20
  assert summary["test_accuracy"] == summary["last_test_accuracy"]
  assert summary["teacher_calls"] == 0 and summary["teacher"] == "none"
  text = (tmp_path / "run" / "summary.json").read_text()
  assert '"val_accuracy": null' in text


def test_a_teacher_is_trained_once_and_shared(tmp_path):
  arg = QUICK + "method=kd,teacher.source=train,teacher.steps=30,seed="
  shared = (
    LINEAR,
    "--config.teacher.name=test_train:linear",
    f"--config.teacher.path={tmp_path / 'teacher'}",
    f"--config.table.path={tmp_path / 'table'}",
  )
  first = run(tmp_path / "first", *shared, arg=arg + "1")
  before = contents(tmp_path / "teacher")
  second = run(tmp_path / "second", *shared, arg=arg + "2")
  assert contents(tmp_path / "teacher") == before
  assert first["teacher"] == second["teacher"]
  assert (first["paid_calls"], second["paid_calls"]) == (80, 0)
  teacher = json.loads((tmp_path / "teacher" / "summary.json").read_text())
  assert teacher["budget"] == 1438 and teacher["steps"] == 30
  assert first["teacher_test_accuracy"] == teacher["test_accuracy"]


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


def test_bfloat16_computes_and_float32_remembers(paid, tmp_path):
  flags, arg = from_table(paid, CNN, "--config.dtype=bfloat16", method="ckd")
  run(tmp_path, *flags, arg=arg)
  losses = [
    line["loss"]
    for line in logger.read_metrics(tmp_path / "metrics.jsonl")
    if "loss" in line
  ]
  assert np.isfinite(losses).all()
  params, state, _ = export.load(tmp_path / "student.safetensors")
  assert {x.dtype.name for x in jax.tree.leaves((params, state))} == {"float32"}


@pytest.mark.parametrize(
  "student", [LINEAR, pytest.param(CNN, marks=pytest.mark.slow)]
)
def test_a_batch_that_the_devices_do_not_divide(
  student, paid, tmp_path, monkeypatch
):
  """Three of four devices for a batch of six; the student is the same."""
  assert len(jax.devices()) == 4
  flags, arg = from_table(paid, student, "--config.batch_size=6")
  three = run(tmp_path / "three", *flags, arg=arg)
  assert three["devices"].startswith("3 x ")
  alone = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *args: alone)
  one = run(tmp_path / "one", *flags, arg=arg)
  assert one["devices"].startswith("1 x ")
  trees = [
    export.load(tmp_path / name / "student.safetensors")[:2]
    for name in ("three", "one")
  ]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), *trees)
  assert three["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=5.1)


def test_a_loss_that_is_not_finite_is_one_line(paid, tmp_path):
  flags, arg = from_table(
    paid, LINEAR, "--config.optimizer.learning_rate=1e30", method="logit_mse"
  )
  with pytest.raises(UserError, match=r"loss.*step.*learning_rate"):
    run(tmp_path, *flags, arg=arg)


@pytest.mark.slow
def test_the_embedded_default_beats_its_labels(tmp_path):
  """configs/digits.py as it stands."""
  config, _ = configuration.from_flags([f"--config={DIGITS}"])
  summary = train.run(config, tmp_path)
  assert summary["teacher_calls"] == 320
  assert summary["test_accuracy"] > 95


def no_bias(num_classes: int) -> Model:
  """A student whose logits no offset can be folded into."""
  init, apply = linear(num_classes)

  def without(params, *args, **kwargs):
    bias = jnp.zeros_like(params["bias"])
    return apply({**params, "bias": bias}, *args, **kwargs)

  return Model(init, without)


def test_an_offset_that_cannot_be_kept_is_refused_before_the_first_step(
  paid, tmp_path
):
  flags, arg = from_table(
    paid, "--config.student=test_train:no_bias", method="ckd"
  )
  with pytest.raises(UserError, match=r"bias.*hyper\.offset"):
    run(tmp_path, *flags, arg=arg)
  assert not (tmp_path / "metrics.jsonl").exists()


def test_a_student_that_is_no_model_costs_no_call(tmp_path):
  questions.clear()
  for student in ("test_train:nowhere", "math:sqrt"):
    with pytest.raises(UserError, match=student):
      run(
        tmp_path,
        f"--config.student={student}",
        arg=QUICK + "method=kd,teacher.source=callable,"
        "teacher.path=test_train:oracle",
      )
  assert questions == []


def test_a_batch_without_a_group_costs_no_call(tmp_path):
  questions.clear()
  for estimator in ("all", "batch_groups"):
    with pytest.raises(UserError, match="group"):
      run(
        tmp_path,
        LINEAR,
        f"--config.hyper.estimator={estimator}",
        arg=QUICK + "batch_size=1,teacher.source=callable,"
        "teacher.path=test_train:oracle",
      )
  assert questions == []
