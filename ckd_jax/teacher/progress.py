"""Reports progress while the teacher is asked."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ckd_jax import table
from ckd_jax.system import console
from ckd_jax.teacher.teacher import Teacher

_INTERVAL = 10.0  # seconds between two lines
_ENOUGH = 8  # rows before a warning: one may look so by chance


class AskingProgress:
  """Prints on stderr what was answered, failed and repeated, and what is left.

  Args:
    teacher: gives the name and the kind.
    total: images whose answers are missing in the table.
    kept: of them, images whose answers an earlier run left in the journal.
  """

  def __init__(self, teacher: Teacher, total: int, kept: int):
    self._teacher, self._total = teacher, total
    self._answered, self._kept, self._repeated = kept, kept, 0
    self._failed = 0
    self._sent: dict[int, float] = {}  # when, by thread
    self._begun = self._last = time.monotonic()
    self._guard = threading.Lock()
    self._told = False
    # Rows; below 0 once they need not be counted.
    self._like_probs = 0 if teacher.kind == "logits" else -1
    self._alike = 0
    self._first: np.ndarray | None = None

  @contextlib.contextmanager
  def under_way(self) -> Iterator[None]:
    """Notes that a request is under way inside, in this thread."""
    thread = threading.get_ident()
    self._sent[thread] = time.monotonic()
    try:
      yield
    finally:
      del self._sent[thread]

  def fail(self, count: int) -> None:
    """Counts images whose request failed, each time that it does."""
    with self._guard:
      self._failed += count

  def tick(self) -> None:
    """Prints a line if the last one is some time ago."""
    with self._guard:
      if time.monotonic() - self._last >= _INTERVAL:
        self._tell()

  def answered(self, values: Any, repeated: int) -> None:
    """Counts answers.

    Args:
      values: float[rows, ..., classes], or a TopK.
      repeated: calls about these rows that were made a second time.
    """
    with self._guard:
      rows = len(jax.tree.leaves(values)[0])
      self._answered += rows
      self._repeated += repeated
      if self._like_probs >= 0:
        self._look_at(values, rows)
      if self._alike >= 0:
        self._compare(values, rows)
      if time.monotonic() - self._last >= _INTERVAL:
        self._tell()

  def _look_at(self, values: Any, rows: int) -> None:
    """Warns once if the first rows all look like probabilities."""
    if not table.looks_like_probs(values):
      self._like_probs = -1
      return
    self._like_probs += rows
    if self._like_probs >= min(_ENOUGH, self._total - self._kept):
      self._like_probs = -1
      table.warn_of_probs(self._teacher.name, "teacher.kind=probs")

  def _compare(self, values: Any, rows: int) -> None:
    """Warns once if the first rows say nothing about their images."""
    if self._first is None:
      self._first = table.first_of(values)
    if not table.are_constant(values, self._first):
      self._alike = -1
      return
    self._alike += rows
    if self._alike >= max(min(_ENOUGH, self._total - self._kept), 2):
      self._alike = -1
      table.warn_of_constants(self._teacher.name)

  def stopping(self) -> None:
    """Says at once why a Ctrl-C does not end the run at once."""
    console.progress(
      "stopping: waiting for the answers under way, which are paid for; Ctrl-C"
      " again leaves them"
    )

  def standing(self) -> str:
    """What is kept, and what the same command will do, after a Ctrl-C."""
    return (
      f"{self._answered} of {self._total} answers are kept: the same command"
      " asks for the others"
    )

  def finish(self) -> None:
    """Prints a last line if one was printed before or a request failed."""
    with self._guard:
      if self._told or self._failed:
        self._tell()

  def _tell(self) -> None:
    self._last, self._told = time.monotonic(), True
    asked = self._answered - self._kept
    left = "unknown"
    if asked:
      gone = self._last - self._begun
      left = f"{(self._total - self._answered) * gone / asked:.0f} s"
    oldest = self._last - min(list(self._sent.values()), default=self._last)
    waiting = ""
    if oldest >= _INTERVAL:
      waiting = f"; a request has been under way for {oldest:.0f} s"
    console.progress(
      f"asking {self._teacher.name}: {self._answered} of {self._total}"
      f" answered, {self._failed} failed, {self._repeated} repeated, {left}"
      f" left{waiting}"
    )
