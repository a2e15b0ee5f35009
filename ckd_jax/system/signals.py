"""Holds back Ctrl-C and SIGTERM where work must end before they take effect."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_back(tell: Callable[[], None] | None = None) -> Iterator[list[int]]:
  """Lets a Ctrl-C or a SIGTERM take effect when the block has ended.

  A block that fails raises its own error; one that raises KeyboardInterrupt
  itself ends as the signal would have ended it.

  Args:
    tell: called at the first signal; a second one takes effect at once. None
      holds back all of them.

  Yields:
    The signals that wait; more of them as they come.
  """
  waiting: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield waiting  # signals reach the main thread alone
    return

  def hold(number, frame):
    waiting.append(number)
    if tell is None:
      return
    if len(waiting) == 1:
      tell()
    else:
      waiting.clear()
      restore()
      signal.raise_signal(number)

  def restore():
    for number, handler in before.items():
      signal.signal(number, handler or signal.SIG_DFL)

  before = {number: signal.signal(number, hold) for number in _HELD}
  try:
    yield waiting
  except KeyboardInterrupt:
    restore()
    for number in waiting:
      signal.raise_signal(number)
    raise
  finally:
    restore()
  for number in waiting:
    signal.raise_signal(number)
