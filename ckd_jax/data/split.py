"""One split of a data set, and its fingerprint."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ckd_jax.data.lazy import Lazy
from ckd_jax.errors import UserError

_PART = 4096  # images decoded at once for the fingerprint


class Split(NamedTuple):
  """Images of one split, in canonical order.

  Attributes:
    images: uint8[n, h, w, c].
    labels: int32[n], numbers of the classes.
    ids: str[n], stable.
    fingerprint: sha256 of ids, labels and pixels in this order.
  """

  images: np.ndarray | Lazy
  labels: np.ndarray
  ids: np.ndarray
  fingerprint: str


Parts = tuple[Split, Split, tuple[str, ...]]  # train, test, class names


def make_split(
  images: np.ndarray | Lazy, labels: Any, ids: Iterable[str]
) -> Split:
  """Fingerprints a split.

  Args:
    images: uint8[n, h, w, c], in memory or in files.
    labels: integers [n], the number of each image's class.
    ids: one for each image, never the same for two.

  Raises:
    UserError: a label does not fit in 32 bits.
  """
  given, ids = np.asarray(labels), np.asarray(ids, str)
  labels = given.astype(np.int32)
  wrong = np.flatnonzero(labels != given)
  if wrong.size:
    raise UserError(
      f"the label of {ids[wrong[0]]} is {given[wrong[0]]}: number the classes"
      " from 0"
    )
  digest = hashlib.sha256(repr((images.shape, labels.shape)).encode())
  digest.update("\n".join(ids).encode())
  digest.update(labels.astype("<i4").tobytes())
  if not isinstance(images, Lazy):
    images = np.ascontiguousarray(images)
  for start in range(0, len(images), _PART):
    part: Any = images[start : start + _PART]
    digest.update(part)
  return Split(images, labels, ids, digest.hexdigest())


def row_ids(split: str, count: int) -> list[str]:
  """Ids for sets without any: `train_0`, `train_1`, ..."""
  return [f"{split}_{row}" for row in range(count)]


def numerals(count: int) -> tuple[str, ...]:
  """Class names for sets without any: "0", "1", ..."""
  return tuple(map(str, range(count)))
