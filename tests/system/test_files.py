"""What is written survives a power cut, which no test can make: count fsync."""

import os
import resource

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.system import files


@pytest.fixture
def synced(monkeypatch):
  """The files and folders that were forced on to the disk, by name."""
  names, fsync = [], os.fsync

  def counting(number):
    names.append(os.path.basename(os.readlink(f"/proc/self/fd/{number}")))
    fsync(number)

  monkeypatch.setattr(os, "fsync", counting)
  return names


def test_a_line_is_on_the_disk_when_append_returns(tmp_path, synced):
  for count, line in enumerate(("one", "two"), 1):
    files.append(tmp_path / "journal", line)
    assert synced.count("journal") == count
  assert (tmp_path / "journal").read_text() == "one\ntwo\n"


def test_a_file_and_its_name_are_on_the_disk_when_write_returns(
  tmp_path, synced
):
  files.write(tmp_path / "folder" / "a", b"new")
  first, last = synced  # the bytes before the rename, the rename after it
  assert first.startswith(".a.") and last == "folder"


def test_a_part_is_on_the_disk_before_a_table_names_it(tmp_path, synced):
  rows = table.Table.from_arrays(np.eye(3))
  rows.write(tmp_path / "t")
  part, table_json = (
    next(place for place, name in enumerate(synced) if stem in name)
    for stem in ("part-00000", "table.json")
  )
  assert part < synced.index("t") < table_json  # bytes, name, and then this


def test_the_next_lock_removes_what_a_killed_write_left(tmp_path):
  """And nothing else that begins with a dot."""
  for name in (".table.json.123.tmp", ".notes.tmp", "a.123.tmp", ".hidden"):
    (tmp_path / name).write_text("")
  with files.lock(tmp_path):
    names = sorted(path.name for path in tmp_path.iterdir())
  assert names == [".hidden", ".notes.tmp", "a.123.tmp", "lock"]


def test_half_a_line_does_not_stay_before_the_next_one(tmp_path):
  """Other threads may write on after a disk was full for a moment."""
  path = tmp_path / "journal"
  files.append(path, "one")
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
  try:
    with pytest.raises(UserError, match="File too large"):
      files.append(path, "a longer line")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  files.append(path, "two")
  assert path.read_text() == "one\ntwo\n"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
  for name in ("pipe", "lock"):
    os.mkfifo(tmp_path / name)
  with pytest.raises(OSError, match="no file"):
    files.read(tmp_path / "pipe")
  with pytest.raises(UserError), files.lock(tmp_path):
    pass
