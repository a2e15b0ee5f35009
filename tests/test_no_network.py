"""The main job, in a process that may open no socket."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys

import pytest

from tests.helpers.paths import DIGITS, ROOT
from tests.helpers.runs import LINEAR, LINEAR_TEACHER, QUICK, run

_forbidden: list[bool] = []  # not empty: forbidden


def _watch(event: str, arguments: tuple) -> None:
  if not _forbidden or not event.startswith("socket."):
    return
  # Local pairs of sockets wake event loops; they lead nowhere.
  is_local = event == "socket.__new__" and arguments[1] == socket.AF_UNIX
  if not is_local and event != "socket.gethostname":
    raise RuntimeError(f"the network was asked: {event}")


@contextlib.contextmanager
def no_sockets():
  """Python opens no socket inside; what C++ does is not seen."""
  if not hasattr(no_sockets, "is_on"):
    sys.addaudithook(_watch)  # for good: there is no way to take it away
    no_sockets.is_on = True
  _forbidden.append(True)
  try:
    yield
  finally:
    _forbidden.clear()


@pytest.mark.slow
def test_a_run_opens_no_socket(tmp_path):
  with no_sockets():
    with pytest.raises(RuntimeError, match="the network was asked"):
      socket.socket()
    with pytest.raises(RuntimeError, match="the network was asked"):
      socket.getaddrinfo("localhost", 80)
    arg = QUICK + "method=ckd,teacher.steps=4"
    summary = run(tmp_path, LINEAR, LINEAR_TEACHER, arg=arg)
  assert summary["steps"] == 20


@pytest.mark.slow
def test_the_main_job_needs_no_network(tmp_path):
  """In a network namespace of its own there is none for C++ either."""
  alone = ["unshare", "-rn"]
  if not shutil.which("unshare") or subprocess.run([*alone, "true"]).returncode:
    pytest.skip("this machine gives a process no network of its own")
  main = [sys.executable, "-m", "ckd_jax.main", f"--config={DIGITS}"]
  done = subprocess.run(
    [*alone, *main, f"--workdir={tmp_path}"],
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "summary.json").exists()
