"""Whole runs on real digits: resumed, repeated, finished and refused."""

import concurrent.futures
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ckd_jax import errors, main, table
from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, logger
from ckd_jax.system import files
from tests.helpers.paths import DIGITS, ROOT
from tests.helpers.runs import (
  CNN,
  LINEAR,
  LINEAR_TEACHER,
  QUICK,
  contents,
  from_table,
  interrupt_after,
  run,
)

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
  pytest.param(["supervised", LINEAR], id="supervised", marks=slow),
  pytest.param(["kd", LINEAR], id="kd", marks=slow),
  pytest.param(["ckd", LINEAR, *GROUPS], id="ckd groups"),
  pytest.param(["ckd", CNN], id="ckd all", marks=slow),
  pytest.param(["ckd", LINEAR, *PLATEAU], id="plateau", marks=slow),
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
  files = [path for path in newest.rglob("*") if path.is_file()]
  file = max(files, key=lambda path: path.stat().st_size)
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


def test_a_finished_run_is_shown_again_and_left_alone(
  fitted, teacher_run, capfd
):
  summary, workdir = fitted
  before = contents(workdir)
  argv = [
    f"--config={DIGITS}:{QUICK}teacher.source=checkpoint",
    CNN,
    LINEAR_TEACHER,
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
    LINEAR_TEACHER,
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


def test_a_run_does_not_go_on_with_other_answers(paid, tmp_path, monkeypatch):
  """The same path, another table: nothing in the config tells them apart."""
  asked = tmp_path / "table"
  shutil.copytree(paid[0], asked)
  flags, arg = from_table((asked, None), LINEAR)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 12)
    run(tmp_path / "run", *flags, arg=arg)
  answered = table.read(asked)
  values = answered.answers.values[::-1]
  shutil.rmtree(asked)
  info = answered.info | {"parts": [], "fields": []}
  info = table.write_info(asked, info | {"missing": list(answered.ids)})
  table.append(asked, info, list(answered.ids), table.Answers(values))
  with pytest.raises(UserError, match="begun with other answers"):
    run(tmp_path / "run", *flags, arg=arg)


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("config.json", b"3"),
    ("config.json", b"\xff"),
    ("summary.json", b"{}"),
    ("summary.json", b"[]"),
    ("summary.json", b'{"offset": [3]}'),
  ],
)
def test_a_damaged_record_is_one_line(name, content, tmp_path):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=r"damaged.*--workdir"):
    run(tmp_path, LINEAR, arg=QUICK + "method=supervised,teacher.source=none")


def test_one_run_directory_is_used_by_one_process(paid, tmp_path):
  """The second one stops with a line, and changes nothing."""
  flags, arg = from_table(paid, LINEAR)
  with files.lock(tmp_path):
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"another process is using .*let it"):
      run(tmp_path, *flags, arg=arg)
    assert contents(tmp_path) == before
  assert run(tmp_path, *flags, arg=arg)["steps"] == 20


@pytest.mark.slow
def test_runs_that_train_one_teacher_take_turns(tmp_path):
  """The second one waits, and uses what the first has made."""
  flags = (LINEAR, LINEAR_TEACHER, "--config.teacher.steps=20")
  flags += (f"--config.teacher.path={tmp_path / 'teacher'}",)
  arg = QUICK + "method=kd,teacher.source=train"
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    with files.lock(tmp_path / "teacher"):
      second = pool.submit(run, tmp_path / "run", *flags, arg=arg)
      with pytest.raises(concurrent.futures.TimeoutError):
        second.result(timeout=5)
      assert not (tmp_path / "teacher" / "config.json").exists()
    assert second.result()["steps"] == 20
