"""Compares the answers to questions that are equal.

The same question, asked twice anyway, tells whether a teacher answers it alike.
"""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ckd_jax.system import console

_TOLERANCE = 1e-2  # of the spread of an answer; float16 in a table loses less


class Twins:
  """Warns once if a teacher answers the same question in two ways.

  Args:
    teacher: its name.
  """

  def __init__(self, teacher: str):
    self._teacher = teacher
    self._seen: dict[bytes, tuple[str, np.ndarray]] = {}
    self._guard = threading.Lock()
    self._equal, self._unlike = 0, 0

  def look(
    self, ids: Sequence[str], questions: Sequence[Any], values: Sequence[Any]
  ) -> None:
    """Compares answers with those to equal questions before.

    Args:
      ids: str[n], of the questions.
      questions: n texts, or images as the teacher saw them.
      values: float[n, classes], the answers.
    """
    for name, question, row in zip(ids, questions, values, strict=True):
      digest = hashlib.blake2b(_bytes(question), digest_size=16).digest()
      with self._guard:
        other, before = self._seen.setdefault(digest, (name, row))
        if other == name:
          continue
        self._equal += 1
        if not _are_alike(before, row):
          self._unlike += 1
          if self._unlike == 1:
            console.note(
              f"{self._teacher} answers the same question in two ways: {other}"
              f" and {name} are equal, and their answers differ by up to"
              f" {_gap(before, row):.3g}"
            )

  def finish(self) -> None:
    """Says of how many equal images the answers differ, if of several."""
    if self._unlike > 1:
      console.note(
        f"{self._teacher} answered differently {self._unlike} of"
        f" {self._equal} questions that were asked before"
      )


def _bytes(question: Any) -> bytes:
  if isinstance(question, str):
    return question.encode()
  return np.ascontiguousarray(question).tobytes()


def _gap(one: np.ndarray, other: np.ndarray) -> float:
  one, other = (np.asarray(x, np.float64) for x in (one, other))
  both = np.isfinite(one) & np.isfinite(other)
  return float(np.abs(one[both] - other[both]).max(initial=0))


def _are_alike(one: np.ndarray, other: np.ndarray) -> bool:
  """Whether two answers are the same up to what a table's float16 loses."""
  finite = np.isfinite(one)
  if (finite != np.isfinite(other)).any():
    return False
  spread = np.ptp(np.asarray(one, np.float64)[finite]) if finite.any() else 0.0
  size = np.abs(np.asarray(one, np.float64)[finite]).max(initial=0)
  return _gap(one, other) <= _TOLERANCE * spread + 1e-3 * size
