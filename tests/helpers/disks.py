"""A small disk that can be full: a tmpfs, where one may be mounted."""

import contextlib
import os
import pathlib
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str = "4m"):
  """Mounts one there, or skips the test."""
  folder.mkdir()
  done = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
  try:
    yield folder
  finally:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def free(folder: pathlib.Path) -> int:
  """Bytes that can still be written there."""
  found = os.statvfs(folder)
  return found.f_bavail * found.f_frsize


def fill(folder: pathlib.Path, left: int) -> pathlib.Path:
  """Leaves only so many bytes, in whole pages; delete the file to free them."""
  file = folder / "filler"
  file.write_bytes(b"")
  with open(file, "wb") as stream:
    stream.write(bytes(max(free(folder) - left, 0)))
  return file
