"""One line and a status for users, the whole traceback for developers."""

import gc
import importlib
import os
import signal
import sys
import threading
import time

import pytest

from ckd_jax import errors
from ckd_jax.system import console


def fail(argv):
  raise errors.UserError(f"two\n  lines of {argv}")


def test_a_user_error_is_one_line(capsys):
  assert errors.command(fail, ["x"]) == 2
  captured = capsys.readouterr()
  assert captured.err == "ckd_jax: error: two lines of ['x']\n"
  assert captured.out == ""


def test_debug_shows_where_and_is_not_passed_on(capsys):
  assert errors.command(fail, ["x", "--debug"]) == 2
  captured = capsys.readouterr().err
  assert "in fail" in captured
  assert captured.endswith("ckd_jax: error: two lines of ['x']\n")


def test_success_and_interruption(capsys):
  def interrupt(argv):
    raise KeyboardInterrupt

  assert errors.command(lambda argv: None, []) == 0
  assert capsys.readouterr().err == ""
  assert errors.command(interrupt, []) == 130
  assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bug_of_ours_is_not_hidden():
  with pytest.raises(ZeroDivisionError):
    errors.command(lambda argv: 1 / 0, [])


def test_the_nearest_name_or_all():
  names = ["resnet8", "resnet20", "vgg8"]
  assert errors.nearest("resnet9", names) == "did you mean 'resnet8'?"
  assert errors.nearest("vg8", iter(names)) == "did you mean 'vgg8'?"
  assert errors.nearest("x", names) == "choose one of resnet20, resnet8, vgg8"


@pytest.mark.parametrize(
  ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_is_one_line(capsys, number, status):
  before = signal.getsignal(signal.SIGTERM)

  def main(argv):
    signal.raise_signal(number)
    raise AssertionError("it was not stopped")

  assert errors.command(main, []) == status
  said = capsys.readouterr()
  assert said.err == "ckd_jax: stopped; the same command resumes\n"
  assert said.out == "" and signal.getsignal(signal.SIGTERM) == before


def test_a_users_error_is_one_line_in_python_too():
  error = errors.UserError("no such class:\n\t'a\u2028b'\x85 in it")
  assert str(error) == "no such class: 'a b' in it"


@pytest.mark.parametrize(
  ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_while_garbage_is_collected_is_not_lost(
  capsys, number, status
):
  """Python drops what is raised in a callback of the collector."""

  def callback(phase, info):
    gc.callbacks.remove(callback)
    signal.raise_signal(number)

  def main(argv):
    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(5)
    raise AssertionError("it was not stopped")

  assert errors.command(main, []) == status
  assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_an_import(number, tmp_path, monkeypatch, capsys):
  """One that is broken off leaves modules that nobody can import any more."""
  (tmp_path / "imported_whole.py").write_text(
    f"import signal, time\nsignal.raise_signal({int(number)})\n"
    "time.sleep(0.2)\nwhole = True\n"
  )
  monkeypatch.syspath_prepend(tmp_path)

  def main(argv):
    importlib.import_module("imported_whole")
    time.sleep(5)
    raise AssertionError("it was not stopped")

  assert errors.command(main, []) == 128 + number
  assert sys.modules.pop("imported_whole").whole
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("ckd_jax: stopped")


def test_an_import_that_hangs_can_be_stopped(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(errors, "_IMPORTED", 0.2)
  (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
  monkeypatch.syspath_prepend(tmp_path)
  threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
  begun = time.monotonic()
  assert (
    errors.command(lambda argv: importlib.import_module("hangs"), []) == 143
  )
  assert time.monotonic() - begun < 10
  assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bucket_without_its_package_is_one_line(capsys):
  def main(argv):
    raise ImportError("Please install gcsfs to access Google Storage")

  assert errors.command(main, []) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("ckd_jax: error: Please install gcsfs")
  with pytest.raises(ModuleNotFoundError):  # a bug of ours
    errors.command(lambda argv: importlib.import_module("no_such_module"), [])


@pytest.mark.parametrize("buffering", [-1, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_output_on_a_full_disk_is_one_line(
  buffering, fails, monkeypatch, capsys
):
  """Whether it is noticed when it is printed or at the end."""

  def main(argv):
    print("a result")
    if fails:
      raise errors.UserError("another reason")

  with open("/dev/full", "w", buffering=buffering) as full:
    monkeypatch.setattr(sys, "stdout", full)
    console.say("a line that a run can go on without")
    assert errors.command(main, []) == 2
    assert sys.stdout is full
  reason = "cannot write the output: No space left on device"
  if fails and buffering == -1:
    reason = "another reason"
  assert capsys.readouterr().err == f"ckd_jax: error: {reason}\n"


def test_an_error_of_another_file_is_not_of_the_output(tmp_path):
  with pytest.raises(FileNotFoundError):
    errors.command(lambda argv: open(tmp_path / "absent"), [])
