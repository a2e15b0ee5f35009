"""How far the asking is, told now and then."""

import threading
import time

import numpy as np

from ckd_jax import table
from ckd_jax.system import console
from ckd_jax.teacher.teacher import Teacher

_INTERVAL = 10.0  # seconds between two lines


class AskingProgress:
  """Tells on stderr what was answered, failed and repeated, and what is left.

  Args:
    teacher: who is asked.
    total: images to be answered about.
    kept: of them, those whose answers an earlier run left in the journal.
  """

  def __init__(self, teacher: Teacher, total: int, kept: int):
    self._teacher, self._total = teacher, total
    self._answered, self._kept, self._repeated = kept, kept, 0
    self._begun = self._last = time.monotonic()
    # Requests run in threads, where nobody knows whether to be silent.
    self._silent = console.is_silent()
    self._guard = threading.Lock()
    self._warned = self._told = False

  @property
  def failed(self) -> int:
    """Requests that failed so far, those that were sent again included."""
    failures = self._teacher.failures
    return failures.count if failures else 0

  def answered(self, images: int, repeated: int) -> None:
    """Enters images that were answered, and how many were asked twice."""
    with self._guard:
      self._answered += images
      self._repeated += repeated
      if time.monotonic() - self._last >= _INTERVAL:
        self._tell()

  def look_at(self, values: np.ndarray) -> None:
    """Warns, once, of logits that look like probabilities."""
    if self._teacher.kind != "logits" or self._warned or self._silent:
      return
    if table.looks_like_probs(values):
      self._warned = True
      console.note(
        f"{self._teacher.name}: these look like probabilities; if so, say"
        " teacher.kind=probs"
      )

  def finish(self) -> None:
    """Tells the end, where something was told before or failed."""
    with self._guard:
      if self._told or self.failed:
        self._tell()

  def _tell(self) -> None:
    self._last, self._told = time.monotonic(), True
    asked = max(self._answered - self._kept, 1)
    left = (self._total - self._answered) * (self._last - self._begun) / asked
    if not self._silent:
      console.note(
        f"asking {self._teacher.name}: {self._answered} of {self._total}"
        f" answered, {self.failed} requests failed, {self._repeated} repeated,"
        f" {left:.0f} s left"
      )
