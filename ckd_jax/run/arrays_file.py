"""Arrays on the disk by orbax, whose errors are pages of many kinds."""

import contextlib
import gc
import logging
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

_LATE = 0.5  # seconds; errors of other writes come from threads
_LOGS = ("absl", "asyncio")  # they print each of them, too


def save(path: epath.Path, arrays: dict[str, Any]) -> None:
  """Writes arrays; all processes call it, the first one writes.

  Args:
    path: the new folder.
    arrays: NumPy arrays by name.

  Raises:
    OSError: the disk is full or the folder cannot be written.
  """
  with _silent():
    failure = _failure(path, arrays)
    if failure:
      time.sleep(_LATE)
      gc.collect()  # what failed beside it is printed when it is dropped
  if failure:
    raise failure


def _failure(path: epath.Path, arrays: dict[str, Any]) -> OSError | None:
  """Writes; an error of the disk is returned without what led to it."""
  try:
    ocp.save(path, arrays)
  except OSError as error:
    return OSError(*error.args)
  except Exception as error:
    known = re.search(
      "No space left on device|File too large|Disk quota exceeded|"
      "Read-only file system|Permission denied|Input/output error",
      str(error),
    )
    if not known:
      time.sleep(_LATE)
      raise
    return OSError(known[0])
  return None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Keeps the other writes' errors off stderr: the first one is told."""
  logs = [logging.getLogger(name) for name in _LOGS]
  levels = [log.level for log in logs]
  hook = sys.unraisablehook
  for log in logs:
    log.setLevel(logging.CRITICAL)
  sys.unraisablehook = lambda late: _is_of_closed_loop(late) or hook(late)
  try:
    yield
  finally:
    sys.unraisablehook = hook
    for log, level in zip(logs, levels, strict=True):
      log.setLevel(level)


def _is_of_closed_loop(late) -> bool:
  """Whether a write failed after orbax had raised the error of another one."""
  text = "Event loop is closed"
  return isinstance(late.exc_value, RuntimeError) and text in str(
    late.exc_value
  )
