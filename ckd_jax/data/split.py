"""One split of a data set, and the fingerprint that tells it from others."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ckd_jax.data.lazy import Lazy
from ckd_jax.errors import UserError

_PART = 4096  # images that are decoded at once, to be fingerprinted


class Split(NamedTuple):
  """Images of one split, in canonical order."""

  images: np.ndarray | Lazy  # uint8[n, h, w, c]
  labels: np.ndarray  # int32[n]
  ids: np.ndarray  # str[n], stable
  fingerprint: str  # sha256 over ids, labels and pixels in this order


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
  """Ids for sets that have none: the rows, `train_0`, `train_1`, ..."""
  return [f"{split}_{row}" for row in range(count)]


def numerals(count: int) -> tuple[str, ...]:
  """Class names for sets that have none."""
  return tuple(map(str, range(count)))
