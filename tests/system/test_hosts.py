"""Several processes are one run: the same student, and they stop together."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy

from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.run import logger
from ckd_jax.system import hosts
from tests.helpers.paths import DIGITS, ROOT
from tests.helpers.runs import QUICK

CONFIG = f"--config={DIGITS}:{QUICK}method=ckd,teacher.source=table"


def started(
  workdir, *flags, processes: int, devices: int, last=(), folders=None
):
  """The command as a cluster starts it.

  `last` is for the last process; `folders` are where each of them runs.
  """
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": str(devices),
    "XDG_CACHE_HOME": str(workdir.parent / "cache"),
    "PYTHONPATH": str(ROOT),
  }
  command = [sys.executable, "-m", "ckd_jax.main", CONFIG, *flags]
  command += [f"--workdir={workdir}"]
  if processes > 1:
    command += [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
  begun = []
  for index in range(processes):
    own = [f"--process={index}"] if processes > 1 else []
    own += last if index == processes - 1 else ()
    begun.append(
      subprocess.Popen(
        command + own,
        cwd=folders[index] if folders else ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  return begun


def ended(begun, timeout=180) -> list[tuple[int, str, str]]:
  """(status, stdout, stderr) of each."""
  try:
    texts = [process.communicate(timeout=timeout) for process in begun]
  finally:
    for process in begun:
      process.kill()
  return [
    (process.returncode, *text)
    for process, text in zip(begun, texts, strict=True)
  ]


def students(*folders):
  return [
    safetensors.numpy.load_file(folder / "student.safetensors")
    for folder in folders
  ]


def run_by(processes: int, folder, paid, *flags) -> list:
  """On four devices in all."""
  path = f"--config.teacher.path={paid[0]}"
  results = ended(
    started(folder, path, *flags, processes=processes, devices=4 // processes)
  )
  assert [status for status, *_ in results] == [0] * processes, results
  return results


@pytest.fixture(scope="module")
def one(paid, tmp_path_factory):
  """The run of a single process."""
  folder = tmp_path_factory.mktemp("one") / "run"
  run_by(1, folder, paid)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  ("processes", "flags"),
  [(2, ()), (4, ()), (2, ("--config.dataset.placement=stream",))],
)
def test_many_processes_make_the_student_of_one(
  processes, flags, one, paid, tmp_path
):
  many = tmp_path / "many"
  first, *others = run_by(processes, many, paid, *flags)
  assert "test accuracy" in first[1]
  told = {line for line in first[1].splitlines() if line and "Gloo" not in line}
  for _, stdout, _ in others:  # only the collectives speak, and in pieces
    assert not told & set(stdout.splitlines()), stdout
  mine, theirs = students(one, many)
  assert mine.keys() == theirs.keys()
  for name, value in mine.items():
    np.testing.assert_allclose(theirs[name], value, rtol=2e-3, atol=2e-4)
  lines = [
    logger.read_metrics(folder / "metrics.jsonl") for folder in (one, many)
  ]
  for ours, other in zip(*lines, strict=True):
    assert ours["step"] == other["step"]
    if "loss" in ours:
      np.testing.assert_allclose(ours["loss"], other["loss"], rtol=1e-3)
  assert not list(many.glob(".*"))  # no mark of who was first is left


@pytest.mark.slow
def test_another_table_stops_all_with_one_line(digits, tmp_path):
  """The same relative path, and other answers behind it on every host."""
  folders = tmp_path / "a", tmp_path / "b"
  for seed, folder in enumerate(folders):
    folder.mkdir()
    answers = np.random.default_rng(seed).normal(size=(1438, 10))
    np.save(folder / "answers.npy", answers.astype(np.float32))
    table.import_file(
      folder / "answers.npy",
      table.Subject("digits", "train", digits.train, digits.class_names),
      folder / "table",
      kind="logits",
    )
  path = "--config.teacher.path=table"
  begun = started(
    tmp_path / "run", path, processes=2, devices=1, folders=folders
  )
  for status, _, stderr in ended(begun):
    assert status == 2
    (line,) = [x for x in stderr.splitlines() if "ckd_jax: error" in x]
    assert "process 1 has other answers of the teacher than process 0" in line
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_another_config_stops_all_with_one_line(tmp_path):
  flags = ["--config.teacher.path=table"]
  last = ["--config.seed=7"]
  begun = started(tmp_path / "run", *flags, processes=2, devices=1, last=last)
  for status, _, stderr in ended(begun):
    assert status == 2
    (line,) = [x for x in stderr.splitlines() if "ckd_jax: error" in x]
    assert "process 1 has other values in its config than process 0" in line


@pytest.mark.slow
def test_a_killed_process_stops_the_others_within_a_minute(paid, tmp_path):
  folder = tmp_path / "run"
  begun = started(
    folder,
    f"--config.teacher.path={paid[0]}",
    "--config.steps=1000000",
    "--config.eval_every=1000",
    processes=2,
    devices=1,
  )
  deadline = time.monotonic() + 120
  while len(logger.read_metrics(folder / "metrics.jsonl")) < 20:
    assert all(process.poll() is None for process in begun)
    assert time.monotonic() < deadline
    time.sleep(0.2)
  begun[1].send_signal(signal.SIGKILL)
  killed = time.monotonic()
  (status, _, stderr), _ = ended(begun, timeout=60)
  assert time.monotonic() - killed < 60
  assert status != 0
  assert re.search("another process is gone|distributed service", stderr)


def test_one_process_is_left_alone():
  flags = ["--config=a", "--workdir=b"]
  assert hosts.join(flags) == flags
  assert hosts.first() and not hosts.many()
  assert hosts.in_turn("nowhere", lambda: 3) == 3
  hosts.assert_equal("anything", "at all")
  placed = hosts.put_global({"a": np.ones(3)}, jax.devices()[0])
  assert isinstance(placed["a"], jax.Array)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ("--hosts=all", "--hosts=auto"),
    ("--hosts=auto --process=0", "alone"),
    ("--coordinator=a:1", "needs --process and --processes"),
    ("--coordinator=a:1 --processes=2 --process=2", "0 to 1"),
    ("--coordinator=a:1 --processes=two --process=0", "whole numbers"),
  ],
)
def test_flags_that_cannot_be(flags, words):
  with pytest.raises(UserError, match=words):
    hosts.join(flags.split())


def test_a_lost_collective_is_one_line(monkeypatch):
  monkeypatch.setattr(hosts, "many", lambda: True)
  with pytest.raises(UserError, match="another process is gone"):
    with hosts.together():
      raise jax.errors.JaxRuntimeError("Connection closed by peer\nmore")
  monkeypatch.setattr(hosts, "many", lambda: False)
  with pytest.raises(jax.errors.JaxRuntimeError):
    with hosts.together():
      raise jax.errors.JaxRuntimeError("anything")


def test_a_process_that_died_at_a_meeting_is_no_full_disk(monkeypatch):
  text = "Barrier failed [type.googleapis.com/tensorflow.CoordinationService]"
  hosts.check_lost(OSError(text))  # alone there is nobody to lose
  monkeypatch.setattr(hosts, "many", lambda: True)
  hosts.check_lost(OSError(28, "No space left on device"))
  with pytest.raises(UserError, match="another process is gone"):
    hosts.check_lost(OSError(text))
