"""Compiled programs are found again, and a kill damages none."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from ckd_jax.system import compile_cache

PROGRAM = """
import jax, pathlib, sys, time
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
from ckd_jax.system import compile_cache
with compile_cache.persistent_cache(pathlib.Path(sys.argv[1])):
  print(jax.jit(lambda x: x * 3 + 1)(2.0))
  if len(sys.argv) > 2:
    if sys.argv[2] == "share":
      compile_cache.share()
    print("compiled", flush=True)
    time.sleep(60)
print(sum(name.endswith("cache_hits") for name in hits))
"""


@pytest.fixture(autouse=True)
def no_folder_yet():
  """As a run finds JAX, and not as the other tests do."""
  before = jax.config.jax_compilation_cache_dir
  compile_cache._use(None)
  yield
  compile_cache._use(before)


def launched(folder, *more):
  """A process that compiles one program through `folder`."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(
    [sys.executable, "-c", PROGRAM, str(folder), *more],
    stdout=subprocess.PIPE,
    text=True,
    env=environment,
  )


def entries(folder) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.glob("*-cache")}


def test_a_second_process_compiles_nothing(tmp_path):
  first, _ = launched(tmp_path).communicate(timeout=60)
  kept = entries(tmp_path)
  second, _ = launched(tmp_path).communicate(timeout=60)
  assert first.split() == ["7.0", "0"]
  assert second.split()[0] == "7.0" and int(second.split()[1]) >= 1
  assert kept and entries(tmp_path) == kept
  assert not list(tmp_path.glob("process-*"))


def test_two_runs_of_one_process_each_have_their_folder(tmp_path):
  name = "jax_persistent_cache_min_compile_time_secs"
  before = getattr(jax.config, name)
  jax.config.update(name, 0.0)
  try:
    for run in range(2):
      with compile_cache.persistent_cache(tmp_path):
        jax.jit(lambda x, run=run: x * 3 + run)(2.0)
      assert len(entries(tmp_path)) == run + 1
  finally:
    jax.config.update(name, before)


def test_a_kill_after_a_checkpoint_keeps_what_was_compiled(tmp_path):
  process = launched(tmp_path, "share")
  while "compiled" not in process.stdout.readline():
    assert process.poll() is None
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  assert entries(tmp_path)
  output, _ = launched(tmp_path).communicate(timeout=60)
  assert int(output.split()[1]) >= 1


def test_a_killed_process_adds_nothing_and_is_cleared_away(tmp_path):
  process = launched(tmp_path, "wait")
  while "compiled" not in process.stdout.readline():
    assert process.poll() is None
  (own,) = tmp_path.glob("process-*")
  assert list(own.glob("*-cache"))  # what a shared folder would now hold
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  assert not entries(tmp_path)
  output, _ = launched(tmp_path).communicate(timeout=60)
  assert output.split() == ["7.0", "0"]
  assert not list(tmp_path.glob("process-*"))


def test_a_living_process_keeps_its_folder(tmp_path):
  with compile_cache._own(tmp_path) as own:
    compile_cache._sweep(tmp_path)
    assert own.is_dir()


def test_the_oldest_programs_are_forgotten(tmp_path, monkeypatch):
  monkeypatch.setattr(compile_cache, "LIMIT", 25)
  own = tmp_path / "process-a"
  own.mkdir()
  for age, name in enumerate(("new-cache", "old-cache", "oldest-cache")):
    (own / name).write_bytes(b"x" * 10)
    moment = time.time() - 100 * age
    os.utime(own / name, (moment, moment))
  compile_cache._publish(own, tmp_path)
  assert set(entries(tmp_path)) == {"new-cache", "old-cache"}


def test_a_folder_that_cannot_be_made_stops_no_run(tmp_path):
  file = tmp_path / "file"
  file.touch()
  with compile_cache.persistent_cache(file / "folder"):
    assert not jax.config.jax_compilation_cache_dir


def test_a_chosen_folder_is_left_alone(tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
  with compile_cache.persistent_cache(pathlib.Path(tmp_path / "other")):
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
  assert not (tmp_path / "other").exists()
