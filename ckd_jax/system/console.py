"""What is said to people: to a terminal, or to nobody where Python calls."""

import contextlib
import contextvars
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Listener = Callable[[int, Mapping[str, Any]], None]  # (step, numbers by name)

_silent = contextvars.ContextVar("silent", default=False)
_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar(
  "listener", default=None
)


def say(text: str = "") -> None:
  """Prints a result or a header on stdout."""
  if not _silent.get():
    print(text, flush=True)


def note(text: str) -> None:
  """Prints a remark or a warning on stderr."""
  if not _silent.get():
    print(text, file=sys.stderr, flush=True)


def is_silent() -> bool:
  """Whether nothing is to be printed."""
  return _silent.get()


def tell(step: int, numbers: Mapping[str, Any]) -> None:
  """Passes the numbers of a finished step to the listener, if there is one."""
  if listener := _listener.get():
    listener(step, numbers)


@contextlib.contextmanager
def silenced(listener: Listener | None = None) -> Iterator[None]:
  """Prints nothing; the numbers of a run go to `listener` instead."""
  tokens = _silent.set(True), _listener.set(listener)
  try:
    yield
  finally:
    _silent.reset(tokens[0])
    _listener.reset(tokens[1])
