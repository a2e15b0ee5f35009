"""Arrays on the disk by orbax, whose errors are pages of many kinds."""

import logging
import re
import sys
import time
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

_LATE = 0.5  # seconds; errors of other writes come from threads


def save(path: epath.Path, arrays: dict[str, Any]) -> None:
  """Writes arrays; all processes call it, the first one writes.

  Args:
    path: the new folder.
    arrays: NumPy arrays by name.

  Raises:
    OSError: the disk is full or the folder cannot be written.
  """
  log = logging.getLogger("absl")  # prints each of them, too
  level = log.level
  log.setLevel(logging.CRITICAL)
  hook = sys.unraisablehook
  sys.unraisablehook = lambda late: _is_of_closed_loop(late) or hook(late)
  try:
    _saved_or_quiet(path, arrays)
  except OSError:
    raise
  except Exception as error:
    known = re.search(
      "No space left on device|File too large|Disk quota exceeded|"
      "Read-only file system|Permission denied|Input/output error",
      str(error),
    )
    if not known:
      raise
    raise OSError(known[0]) from error
  finally:
    sys.unraisablehook = hook
    log.setLevel(level)


def _saved_or_quiet(path: epath.Path, arrays: dict[str, Any]) -> None:
  """Writes; after an error, waits for those of the writes still under way."""
  try:
    ocp.save(path, arrays)
  except Exception:
    time.sleep(_LATE)
    raise


def _is_of_closed_loop(late) -> bool:
  """Whether a write failed after orbax had raised the error of another one."""
  text = "Event loop is closed"
  return isinstance(late.exc_value, RuntimeError) and text in str(
    late.exc_value
  )
