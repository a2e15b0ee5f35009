"""Holds back Ctrl-C and SIGTERM where a library cannot be interrupted."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
  """Lets a Ctrl-C or a SIGTERM take effect when the block has ended."""
  if threading.current_thread() is not threading.main_thread():
    yield  # signals reach the main thread alone
    return
  waiting: list[int] = []
  before = {
    number: signal.signal(number, lambda number, frame: waiting.append(number))
    for number in _HELD
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler or signal.SIG_DFL)
    for number in waiting[:1]:
      signal.raise_signal(number)
