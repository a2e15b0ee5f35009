"""One split of a data set, and its fingerprint."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from ckd_jax.data.inputs import subset
from ckd_jax.data.lazy import Lazy
from ckd_jax.errors import UserError

_PART = 4096  # rows read at once for the fingerprint


class Split(NamedTuple):
  """Inputs of one split, in canonical order.

  Attributes:
    inputs: a tree of [n, ...]: uint8[n, h, w, c] images, in memory or in files,
      or int32[n, length] tokens, 0 for padding.
    labels: int32[n], numbers of the classes; or int32[n, length], the token
      that follows each position, -1 where none is counted.
    ids: str[n], stable.
    fingerprint: sha256 of ids, labels and pixels or questions in this order.
    questions: str[n], what a teacher of its own tokens is asked; None where it
      is asked about the inputs themselves.
  """

  inputs: Any
  labels: np.ndarray
  ids: np.ndarray
  fingerprint: str
  questions: np.ndarray | None = None

  def part(self, rows: np.ndarray) -> "Split":
    """The rows int[m], in that order; it has no fingerprint."""
    questions = self.questions
    return Split(
      subset(self.inputs, rows),
      self.labels[rows],
      self.ids[rows],
      "",
      None if questions is None else questions[rows],
    )


Parts = tuple[Split, Split, tuple[str, ...]]  # train, test, class names


def make_split(
  inputs: Any,
  labels: Any,
  ids: Iterable[str],
  questions: Iterable[str] | None = None,
) -> Split:
  """Fingerprints a split.

  Args:
    inputs: a tree of [n, ...]; images may be in files.
    labels: integers [n], the number of each row's class; or [n, length].
    ids: one for each row, never the same for two.
    questions: one text for each row, which stands for its inputs: another
      vocabulary makes other tokens of the same questions.

  Raises:
    UserError: a label does not fit in 32 bits.
  """
  given, ids = np.asarray(labels), np.asarray(ids, str)
  labels = given.astype(np.int32)
  differs = (labels != given).any(tuple(range(1, labels.ndim)))
  if (wrong := np.flatnonzero(differs)).size:
    raise UserError(
      f"the label of {ids[wrong[0]]} is {given[wrong[0]]}: number the classes"
      " from 0"
    )
  if questions is not None:
    # Not of type str, whose rows are all as wide as the longest.
    questions = np.array(list(questions), object)
  inputs = jax.tree.map(_contiguous, inputs)
  digest = hashlib.sha256()
  if questions is None:
    _add_inputs(digest, inputs, labels, ids)
  else:
    for text in (*ids, *questions):
      data = text.encode()
      digest.update(len(data).to_bytes(8, "little") + data)
    digest.update(repr(labels.shape).encode() + labels.astype("<i4").tobytes())
  return Split(inputs, labels, ids, digest.hexdigest(), questions)


def _add_inputs(digest, inputs: Any, labels, ids) -> None:
  """Adds rows, whose inputs are the questions, to a digest."""
  leaves = jax.tree.leaves(inputs)
  shapes = [leaf.shape for leaf in leaves]
  digest.update(repr((*shapes, labels.shape)).encode())
  digest.update("\n".join(ids).encode())
  digest.update(labels.astype("<i4").tobytes())
  for leaf in leaves:
    for start in range(0, len(leaf), _PART):
      digest.update(leaf[start : start + _PART])


def _contiguous(leaf: Any) -> Any:
  return leaf if isinstance(leaf, Lazy) else np.ascontiguousarray(leaf)


def row_ids(split: str, count: int) -> list[str]:
  """Ids for sets without any: `train_0`, `train_1`, ..."""
  return [f"{split}_{row}" for row in range(count)]


def numerals(count: int) -> tuple[str, ...]:
  """Class names for sets without any: "0", "1", ..."""
  return tuple(map(str, range(count)))
