"""One split of a data set, and the fingerprint that tells it from others."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
  """Images of one split, in canonical order."""

  images: np.ndarray  # uint8[n, h, w, c]
  labels: np.ndarray  # int32[n]
  ids: np.ndarray  # str[n], stable
  fingerprint: str  # sha256 over ids, labels and pixels in this order


def make_split(
  images: np.ndarray, labels: np.ndarray, ids: Iterable[str]
) -> Split:
  """Fingerprints uint8[n, h, w, c], integer labels [n] and n ids."""
  images = np.ascontiguousarray(images)
  labels = np.asarray(labels, np.int32)
  ids = np.asarray(ids, str)
  digest = hashlib.sha256(repr((images.shape, labels.shape)).encode())
  digest.update("\n".join(ids).encode())
  digest.update(labels.astype("<i4").tobytes())
  digest.update(images)
  return Split(images, labels, ids, digest.hexdigest())


def row_ids(split: str, count: int) -> list[str]:
  """Ids for sets that have none: the rows, `train_0`, `train_1`, ..."""
  return [f"{split}_{row}" for row in range(count)]


def numerals(count: int) -> tuple[str, ...]:
  """Class names for sets that have none."""
  return tuple(map(str, range(count)))
