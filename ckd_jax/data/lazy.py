"""Images that are decoded when they are asked for: sets that fit nowhere."""

import concurrent.futures
import os
from collections.abc import Callable

import numpy as np


class Lazy:
  """Looks like uint8[n, h, w, c]; holds nothing.

  Args:
    read: row -> uint8[h, w, c]; called from many threads.
    shape: of all images, [n, h, w, c].
    rows: int[m], which of them these are; None is all.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(
    self,
    read: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    rows: np.ndarray | None = None,
  ):
    self._read = read
    self._rows = np.arange(shape[0]) if rows is None else rows
    self._pool: concurrent.futures.ThreadPoolExecutor | None = None
    self.shape = (len(self._rows), *shape[1:])

  def __len__(self) -> int:
    return len(self._rows)

  def subset(self, rows) -> "Lazy":
    """Some of the images, still not decoded."""
    return Lazy(self._read, self.shape, self._rows[rows])

  def __getitem__(self, rows) -> np.ndarray:
    """Decodes a slice or the rows of int[m]; -> uint8[m, h, w, c]."""
    wanted = self._rows[rows]
    images = np.empty((len(wanted), *self.shape[1:]), np.uint8)
    if self._pool is None:  # Pillow lets go of Python's lock while it decodes
      self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    for place, pixels in enumerate(self._pool.map(self._read, wanted.tolist())):
      images[place] = pixels
    return images

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self[:], dtype)


def memory() -> int:
  """Bytes of this machine."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def subset(images, rows):
  """`images[rows]`, decoded only if the whole set is."""
  return images.subset(rows) if isinstance(images, Lazy) else images[rows]
