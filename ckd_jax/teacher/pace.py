"""When the next request may be sent."""

import threading
import time


class Stopped(Exception):
  """Nothing more is sent: another request failed for good, or a Ctrl-C."""


def pause(seconds: float, ending: threading.Event) -> None:
  """Sleeps.

  Raises:
    Stopped: `ending` was set before the time was over.
  """
  if seconds > 0 and ending.wait(seconds):
    raise Stopped


class Pace:
  """Spaces requests evenly, and holds all of them while a service asks for it.

  Args:
    requests_per_second: upper limit; 0 is none.
  """

  def __init__(self, requests_per_second: float):
    self._gap = 1 / requests_per_second if requests_per_second else 0.0
    self._guard = threading.Lock()
    self._free = time.monotonic()

  def wait(self, ending: threading.Event) -> None:
    """Blocks until the next request may be sent.

    Raises:
      Stopped: `ending` was set before.
    """
    with self._guard:
      now = time.monotonic()
      start = max(self._free, now)
      self._free = start + self._gap
    pause(start - now, ending)

  def hold(self, seconds: float) -> None:
    """Sends nothing for so long: a service limits the rate."""
    with self._guard:
      self._free = max(self._free, time.monotonic() + seconds)
