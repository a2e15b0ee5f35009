"""Messages for people; silent under the Python API, warnings apart."""

import contextlib
import contextvars
import io
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Listener = Callable[[int, Mapping[str, Any]], None]  # (step, numbers by name)

_PACKAGE = str(pathlib.Path(__file__).parents[1])

# Threads begin with the defaults: run them in a copy of the caller's context.
_silent = contextvars.ContextVar("silent", default=False)
_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar(
  "listener", default=None
)


def show(text: str, stream: Any, end: str = "\n") -> None:
  """Prints; a full disk, or a terminal that is gone, does not end a run."""
  with contextlib.suppress(OSError):
    print(text, end=end, file=stream or io.StringIO(), flush=True)


def say(text: str = "") -> None:
  """Prints a result or a header on stdout."""
  if not _silent.get():
    show(text, sys.stdout)


def progress(text: str) -> None:
  """Prints a progress line on stderr."""
  if not _silent.get():
    show(text, sys.stderr)


def note(text: str) -> None:
  """Warns of a likely mistake: on stderr, or as a UserWarning when silent."""
  if _silent.get():
    warnings.warn(text, UserWarning, stacklevel=outside())
  else:
    show(text, sys.stderr)


def outside() -> int:
  """The `stacklevel` at which a caller's warning leaves this package."""
  level, frame = 1, sys._getframe(1)
  while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
    level, frame = level + 1, frame.f_back
  return level


def is_silent() -> bool:
  """Whether nothing is printed."""
  return _silent.get()


def tell(step: int, numbers: Mapping[str, Any]) -> None:
  """Passes the metrics of a finished step to the listener, if there is one."""
  if listener := _listener.get():
    listener(step, numbers)


@contextlib.contextmanager
def silenced(listener: Listener | None = None) -> Iterator[None]:
  """Prints nothing inside.

  Args:
    listener: called with (step, metrics by name) instead; None drops them.
  """
  tokens = _silent.set(True), _listener.set(listener)
  try:
    yield
  finally:
    _silent.reset(tokens[0])
    _listener.reset(tokens[1])
