"""Writes files that survive a kill, and locks folders that runs share.

Links in the place of a file are refused: a folder that came from elsewhere may
point to any file of its reader.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
from collections.abc import Iterator

from etils import epath

from ckd_jax.errors import UserError


def is_local(path: epath.PathLike) -> bool:
  """Whether `path` is on a file system, not in a bucket."""
  return "://" not in os.fspath(epath.Path(path))


@contextlib.contextmanager
def _explained(path: epath.PathLike) -> Iterator[None]:
  """Turns a full disk or a read-only folder into a UserError."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f"cannot write {os.fspath(path)}: {reason}") from error


def write(path: epath.PathLike, data: bytes) -> None:
  """Replaces a file as a whole: after a kill it is the old one or the new one.

  Args:
    path: local or in a bucket; folders are made if absent.
    data: the new contents of the file.

  Raises:
    UserError: the disk is full or the folder cannot be written.
  """
  path = epath.Path(path)
  with _explained(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(path):
      path.write_bytes(data)  # a bucket shows an object only when it is whole
      return
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
      with open(temporary, "wb", opener=_no_link) as file:
        file.write(data)
        _sync(file)
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)
    sync(path.parent)  # the rename itself must survive a power cut


def append(path: epath.PathLike, line: str) -> None:
  """Adds a line to a file and returns once it would survive a power cut.

  Args:
    path: local or in a bucket; made if absent.
    line: text without its newline.

  Raises:
    UserError: the disk is full or the folder cannot be written.
  """
  path = epath.Path(path)
  if not is_local(path):  # an object cannot grow
    before = path.read_text() if path.exists() else ""
    write(path, f"{before}{line}\n".encode())
    return
  with _explained(path), open(path, "ab", 0, opener=_no_link) as file:
    whole, data = file.seek(0, os.SEEK_END), f"{line}\n".encode()
    try:
      while data:
        data = data[file.write(data) :]
      _sync(file)
    except OSError:  # another thread's line must not follow half of this one
      os.ftruncate(file.fileno(), whole)
      raise


def _no_link(path: str, flags: int) -> int:
  """Opens a file, but none that a link names, and waits for no pipe."""
  return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def read(path: epath.PathLike) -> bytes:
  """The contents of a file, but of no pipe or device: these may never end.

  Args:
    path: local or in a bucket.

  Raises:
    OSError: there is none, or it cannot be read.
  """
  path = epath.Path(path)
  if not is_local(path):
    return path.read_bytes()

  def at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)

  with open(path, "rb", opener=at_once) as file:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
      raise OSError(errno.EINVAL, "it is no file")
    return file.read()


def sync(path: epath.PathLike) -> None:
  """Forces a local file, or the entries of a folder, on to the disk."""
  if not is_local(path):
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _sync(file) -> None:
  file.flush()
  os.fsync(file.fileno())


@contextlib.contextmanager
def lock(folder: epath.PathLike, *, wait: bool = True) -> Iterator[None]:
  """Locks a folder until the block, or the process, ends.

  Buckets have no locks: let one run at a time ask a teacher there.

  Args:
    folder: made if absent.
    wait: whether to wait for another process that has locked it.

  Raises:
    UserError: another process has, and is not waited for.
  """
  folder = epath.Path(folder)
  if not is_local(folder):
    yield
    return
  with contextlib.ExitStack() as stack:
    with _explained(folder):
      folder.mkdir(parents=True, exist_ok=True)
      file = stack.enter_context(open(folder / "lock", "w", opener=_no_link))
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        if not wait:
          raise UserError(
            f"another process is using {folder}: let it end, or stop it, or "
            "choose another folder"
          ) from error
        print(f"waiting: another run is using {folder}", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
      for path in folder.iterdir():  # left by a process that was killed
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
          path.unlink(missing_ok=True)
    yield


def absent(folder: epath.Path) -> list[epath.Path]:
  """What must be made to make a folder, the innermost first."""
  return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folder: epath.Path, new: list[epath.Path]) -> None:
  """Removes folders that hold nothing but the lock of a command that failed.

  Args:
    folder: it has been locked.
    new: the folders that were made for it, the innermost first.
  """
  if not new or not folder.exists():
    return
  if {path.name for path in folder.iterdir()} - {"lock"}:
    return
  (folder / "lock").unlink(missing_ok=True)
  for path in new:
    with contextlib.suppress(OSError):  # a neighbour made something there
      path.rmdir()
