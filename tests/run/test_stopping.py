"""A Ctrl-C or a SIGTERM is a checkpoint at once, and nothing is lost by it."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from ckd_jax.run import logger, selection, stages, train
from tests.helpers.paths import DIGITS, ROOT
from tests.helpers.runs import (
  CNN,
  LINEAR,
  LINEAR_TEACHER,
  QUICK,
  from_table,
  run,
)
from tests.system.test_hosts import ended, started
from tests.test_sweep import swept

slow = pytest.mark.slow
NO_TEACHER = QUICK + "method=supervised,teacher.source=none"
PLATEAU = (
  "--config.schedule=plateau",
  "--config.schedule_hyper.patience=2",
  "--config.schedule_hyper.levels=3",
  "--config.steps=100",
)


def signalled_at(patch, step: int, number=signal.SIGINT, times=1) -> None:
  """A signal while the numbers of this step are being written."""
  log, left = logger.Logger.log, [times]

  def told(self, at, **metrics):
    log(self, at, **metrics)
    if at == step and left[0]:
      left[0] -= 1
      signal.raise_signal(number)

  patch.setattr(logger.Logger, "log", told)


def metrics(folder) -> bytes:
  return (folder / "metrics.jsonl").read_bytes()


CASES = [
  pytest.param("ckd", [], 12, id="one step a launch", marks=slow),
  pytest.param("ckd", ["--config.steps_per_launch=4"], 18, id="four"),
  pytest.param(
    "kd", ["--config.dataset.placement=stream"], 12, id="streamed", marks=slow
  ),
  pytest.param("kd", PLATEAU, 12, id="a plateau", marks=slow),
]


@pytest.mark.parametrize(("method", "flags", "reached"), CASES)
def test_the_same_command_goes_on_from_that_very_step(
  method, flags, reached, paid, tmp_path
):
  """The numbers of step 11 are read while the next launch is under way."""
  flags, arg = from_table(paid, LINEAR, *flags, method=method)
  whole = run(tmp_path / "whole", *flags, arg=arg)
  with pytest.MonkeyPatch.context() as patch:
    signalled_at(patch, 11)
    with pytest.raises(KeyboardInterrupt) as stopped:
      run(tmp_path / "parts", *flags, arg=arg)
  folder = tmp_path / "parts" / "checkpoints" / f"{reached:08d}"
  assert str(stopped.value) == (
    f"the same command resumes at step {reached}, from {folder}"
  )
  read = logger.read_metrics(tmp_path / "parts" / "metrics.jsonl")
  assert read[-1]["step"] == reached
  parts = run(tmp_path / "parts", *flags, arg=arg)
  for key in ("params_sha256", "test_accuracy", "val_accuracy", "best_step"):
    assert whole[key] == parts[key], key
  assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_before_the_first_step_and_at_the_end(tmp_path, monkeypatch):
  """Also while the student is tested: its training is not lost."""
  whole = run(tmp_path / "whole", LINEAR, "--config.steps=15", arg=NO_TEACHER)
  for module, name, step in (
    (selection, "start", 0),
    (selection, "test", 15),
    (train.summary, "finish", 15),
  ):
    with monkeypatch.context() as patch:
      function = getattr(module, name)

      def told(*args, function=function):
        signal.raise_signal(signal.SIGINT)
        return function(*args)

      patch.setattr(module, name, told)
      words = "is finished" if name == "finish" else f"resumes at step {step},"
      with pytest.raises(KeyboardInterrupt, match=words):
        run(tmp_path / "parts", LINEAR, "--config.steps=15", arg=NO_TEACHER)
  parts = run(tmp_path / "parts", LINEAR, "--config.steps=15", arg=NO_TEACHER)
  assert parts["params_sha256"] == whole["params_sha256"]
  assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_a_second_signal_does_not_wait(tmp_path):
  """It falls back to the last checkpoint."""
  with pytest.MonkeyPatch.context() as patch:
    signalled_at(patch, 13)
    log = logger.Logger.log

    def twice(self, at, **numbers):
      log(self, at, **numbers)
      if at == 13:
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was waited for")

    patch.setattr(logger.Logger, "log", twice)
    with pytest.raises(KeyboardInterrupt, match="resumes at step 10"):
      run(tmp_path, LINEAR, arg=NO_TEACHER)
  handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  assert handlers == [signal.default_int_handler, signal.SIG_DFL]


@slow
def test_a_stage_goes_on_from_that_very_step(fitted, tmp_path, monkeypatch):
  flags = [CNN, LINEAR_TEACHER, f"--config.teacher.path={fitted[1]}"]
  flags += ["--config.checkpoint_every=7"]
  arg = QUICK + "method=fsp,teacher.source=checkpoint,hyper.stage_epochs=3"
  whole = run(tmp_path / "whole", *flags, arg=arg)
  with monkeypatch.context() as patch:
    signalled_at(patch, 9)
    with pytest.raises(KeyboardInterrupt, match="at step 10 of stage 1"):
      run(tmp_path / "parts", *flags, arg=arg)
  resumed = []
  run_stage = stages._run_stage
  monkeypatch.setattr(
    stages,
    "_run_stage",
    lambda *args: resumed.append(args[2]) or run_stage(*args),
  )
  parts = run(tmp_path / "parts", *flags, arg=arg)
  assert parts["params_sha256"] == whole["params_sha256"] and resumed == [0]
  for name in ("metrics.jsonl", "metrics_stage_0.jsonl"):
    found = {(tmp_path / x / name).read_bytes() for x in ("whole", "parts")}
    assert len(found) == 1


@slow
def test_a_sweep_together_stops_at_one_step(paid, tmp_path, monkeypatch):
  flags = [LINEAR, f"--config.teacher.path={paid[0]}", "--over=seed=1,2,3"]
  whole = swept(tmp_path / "whole", *flags, how="together")
  with monkeypatch.context() as patch:
    signalled_at(patch, 13)
    with pytest.raises(KeyboardInterrupt, match=r"seed=1, for one: .*step 14"):
      swept(tmp_path / "parts", *flags, how="together")
  steps = [path.name for path in tmp_path.glob("parts/*/checkpoints/*14")]
  assert len(steps) == 3
  with monkeypatch.context() as patch:  # and while one of them is tested
    test = selection.test

    def told(*args):
      signal.raise_signal(signal.SIGINT)
      return test(*args)

    patch.setattr(selection, "test", told)
    with pytest.raises(KeyboardInterrupt):
      swept(tmp_path / "parts", *flags, how="together")
  parts = swept(tmp_path / "parts", *flags, how="together")
  for one, other in zip(whole, parts, strict=True):
    assert one["params_sha256"] == other["params_sha256"]


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_signalled(number, tmp_path):
  """Its lines, its status, and the step at which it goes on."""
  arg = NO_TEACHER + ",steps=4000,eval_every=2000,checkpoint_every=2000"
  whole = run(tmp_path / "whole", LINEAR, arg=arg)
  command = [sys.executable, "-m", "ckd_jax.main", f"--config={DIGITS}:{arg}"]
  command += [LINEAR, f"--workdir={tmp_path / 'parts'}"]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  environment |= {"JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)}
  with subprocess.Popen(
    command,
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    deadline = time.monotonic() + 120
    file = tmp_path / "parts" / "metrics.jsonl"
    while len(logger.read_metrics(file)) < 30:
      assert time.monotonic() < deadline and process.poll() is None
      time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
  assert process.returncode == 128 + number
  assert "stopping: a checkpoint is written now" in stderr
  (step,) = re.findall(
    r"stopped; the same command resumes at step (\d+)", stderr
  )
  assert 30 <= int(step) < 2000
  parts = run(tmp_path / "parts", LINEAR, arg=arg)
  assert parts["params_sha256"] == whole["params_sha256"]
  assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


@slow
def test_processes_stop_together(paid, tmp_path):
  """One of two is told: both write a checkpoint where they meet."""
  flags = [f"--config.teacher.path={paid[0]}", "--config.steps=1000000"]
  flags += ["--config.eval_every=500", "--config.checkpoint_every=100000"]
  begun = started(tmp_path / "run", *flags, processes=2, devices=1)
  deadline = time.monotonic() + 120
  while len(logger.read_metrics(tmp_path / "run" / "metrics.jsonl")) < 20:
    assert all(process.poll() is None for process in begun)
    assert time.monotonic() < deadline
    time.sleep(0.1)
  begun[1].send_signal(signal.SIGTERM)
  (status, _, one), (other_status, _, other) = ended(begun, timeout=100)
  assert (status, other_status) == (130, 143)
  said = {
    re.findall(r"resumes at step (\d+), from", x)[0] for x in (one, other)
  }
  (step,) = said
  assert int(step) % 500 == 0 and int(step) > 0
  assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == [
    f"{int(step):08d}"
  ]
