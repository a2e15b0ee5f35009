"""A request that failed, and how long its service asks to be left alone."""

import email.utils
import math
import time
from typing import Any

_LONGEST = 3600.0  # seconds that a service may ask for


class Outage(Exception):
  """A request failed, and may be sent again.

  Attributes:
    wait: seconds that the service asks for before the next request; 0 is none.
  """

  def __init__(self, text: str, wait: float = 0.0):
    super().__init__(text)
    self.wait = wait


def retry_after(error: BaseException) -> float:
  """The Retry-After of an HTTP client's error, in seconds; 0 without one.

  urllib's errors have `headers`; those of requests, httpx and most clients of
  services have `response.headers`.
  """
  response: Any = getattr(error, "response", None)
  headers: Any = getattr(error, "headers", getattr(response, "headers", None))
  try:
    text = headers.get("Retry-After") or headers.get("retry-after") or "0"
    seconds = float(text) if _is_number(text) else _until(text)
  except Exception:  # whatever a client calls headers
    return 0.0
  return min(max(seconds, 0.0), _LONGEST) if math.isfinite(seconds) else 0.0


def _is_number(text: str) -> bool:
  return str(text).strip().replace(".", "", 1).isdigit()


def _until(text: str) -> float:
  return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
