"""A disk that is full or read-only: one line, and nothing is lost."""

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys

import pytest
from etils import epath

from ckd_jax import errors, export, main
from ckd_jax.run import arrays_file
from ckd_jax.system import files
from tests.helpers import disks
from tests.helpers.paths import DIGITS, ROOT
from tests.helpers.runs import LINEAR, QUICK, questions

slow = pytest.mark.slow
PAGE = 4096
FLAGS = (
  f"--config={DIGITS}:{QUICK}method=kd,steps=15",
  LINEAR,
  "--config.teacher.source=callable",
  "--config.teacher.path=tests.helpers.runs:oracle",
  "--config.teacher.part_size=25",
)


def commands(disk) -> int:
  """The run and its export, as a shell would have them; the status."""
  status = errors.command(main.main, [*FLAGS, f"--workdir={disk / 'run'}"])
  if status:
    return status
  return errors.command(
    export.main, [str(disk / "run"), f"--out={disk / 'student'}"]
  )


def student(disk) -> tuple[bytes, ...]:
  """All that must be equal, whatever happened on the way."""
  places = ("student/student.safetensors", "run/metrics.jsonl")
  return tuple((disk / place).read_bytes() for place in places)


def empty(disk) -> None:
  for path in disk.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
  with disks.small_disk(tmp_path_factory.mktemp("disks") / "small") as folder:
    yield folder


@pytest.fixture(scope="module")
def whole(disk):
  """What the commands make where there is room, and the bytes it takes."""
  empty(disk)
  before = disks.free(disk)
  assert commands(disk) == 0
  return student(disk), before - disks.free(disk)


def check(disk, whole, left: int, capfd) -> str:
  """Fills the disk but for `left` bytes; returns what the command said."""
  empty(disk)
  questions.clear()
  disks.fill(disk, left)
  return stopped(disk, whole, capfd)


def stopped(disk, whole, capfd) -> str:
  """Runs the commands on it; and again, when there is room, if they stop."""
  capfd.readouterr()
  status = commands(disk)
  said = capfd.readouterr().err
  if status == 0:  # a run needs a little more than what remains of it
    return ""
  assert status == 2 and "Traceback" not in said
  (line,) = [x for x in said.splitlines() if "ckd_jax: error" in x]
  assert "No space left on device" in line, line
  assert said.splitlines()[-1] == line
  assert not [*disk.rglob(".*.tmp")]  # it would take room until the next run
  once = len(questions)
  (disk / "filler").unlink()
  assert commands(disk) == 0, capfd.readouterr().err
  assert student(disk) == whole[0]
  # One question was under way, if its answer could not be written.
  assert 80 <= len(questions) <= 80 + (once < 80)
  return line


@pytest.mark.parametrize(
  "share", [0.5, *(pytest.param(x, marks=slow) for x in (0.0, 0.1, 0.7, 0.85))]
)
def test_a_full_disk_is_one_line_and_loses_nothing(share, disk, whole, capfd):
  assert check(disk, whole, int(share * whole[1]) // PAGE * PAGE, capfd)


WRITES = [
  # What was freed before is enough for these two on a disk that is filled once.
  ("write", "config.json"),
  pytest.param("write", "summary.json", marks=slow),
  *(
    pytest.param(how, name, marks=slow)
    for how, name in (
      *(("append", name) for name in ("journal.jsonl", "metrics.jsonl")),
      *(("write", name) for name in ("journal.jsonl", "metrics.jsonl")),
      *(("write", name) for name in ("part-00000.npz", "table.json")),
      *(("write", name) for name in ("calls.json", "manifest.json")),
      *(("write", name) for name in ("curves.png", "student.safetensors")),
      ("write", "labels.txt"),
    )
  ),
]


@pytest.mark.parametrize(("how", "name"), WRITES)
def test_it_is_full_when_this_file_is_written(
  how, name, disk, whole, capfd, monkeypatch
):
  empty(disk)
  questions.clear()
  into = getattr(files, how)

  def full(path, data):
    if epath.Path(path).name == name and not (disk / "filler").exists():
      disks.fill(disk, 0)
      monkeypatch.undo()
    into(path, data)

  monkeypatch.setattr(files, how, full)
  assert f"/{name}: No space" in stopped(disk, whole, capfd).replace(
    "checkpoints/00000010", "manifest.json"
  )


@slow
def test_a_full_disk_at_every_write(disk, whole, capfd):
  """With room for every number of pages that is not enough."""
  said = [check(disk, whole, n, capfd) for n in range(0, 2 * whole[1], PAGE)]
  failed = [line for line in said if line]
  places = {line.split(": ")[2].replace(str(disk), "DISK") for line in failed}
  with capfd.disabled():
    print(f"\n{len(said)} sizes of disk, {len(failed)} too small;", *places)
  # Orbax cuts its data into more files or fewer, by how its threads meet.
  assert all(said[: int(0.85 * whole[1]) // PAGE]) and not said[-1]


@slow
@pytest.mark.parametrize("size", ["40k", "120k", "300k"])
def test_the_whole_of_stderr_is_one_line(size, tmp_path):
  """Writes that failed after the first one were told by threads, in pages."""
  arg = QUICK + "method=supervised,teacher.source=none,steps=60"
  command = [sys.executable, "-m", "ckd_jax.main", f"--config={DIGITS}:{arg}"]
  with disks.small_disk(tmp_path / "disk", size) as disk:
    done = subprocess.run(
      [*command, "--config.student=cnn", f"--workdir={disk / 'run'}"],
      env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )
  (line,) = done.stderr.splitlines()
  assert done.returncode == 2
  assert re.match(r"ckd_jax: error: cannot write .*/checkpoints/", line)


def test_the_errors_of_other_writes_are_silent(tmp_path, monkeypatch, caplog):
  """Asyncio tells of them when they are dropped: after the one that is told."""

  def saved(path, arrays):
    other = asyncio.new_event_loop().create_future()
    other.get_loop().close()
    other.set_exception(ValueError("RESOURCE_EXHAUSTED"))
    cycle = [other]
    cycle.append(cycle)  # so that only the collector drops it
    raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

  monkeypatch.setattr(arrays_file.ocp, "save", saved)
  monkeypatch.setattr(arrays_file, "_LATE", 0)
  with pytest.raises(OSError, match=r"^No space left on device$"):
    arrays_file.save(tmp_path, {})
  gc.collect()
  assert not caplog.records


def test_a_read_only_disk_is_one_line(tmp_path, capfd):
  with disks.small_disk(tmp_path / "disk") as disk:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert commands(disk) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "Read-only file system" in line
