"""Images that are decoded on access, for sets larger than memory."""

import concurrent.futures
import os
from collections.abc import Callable

import numpy as np


class Lazy:
  """Behaves like uint8[n, h, w, c], without holding the pixels.

  Args:
    read: row -> uint8[h, w, c]; called from many threads.
    shape: (n, h, w, c) of all images.
    rows: int[m], a selection of them; None is all.
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
    """A selection of the images, still not decoded."""
    return Lazy(self._read, self.shape, self._rows[rows])

  def __getitem__(self, rows) -> np.ndarray:
    """Decodes a slice or the rows of int[m]; -> uint8[m, h, w, c]."""
    wanted = self._rows[rows]
    images = np.empty((len(wanted), *self.shape[1:]), np.uint8)
    if self._pool is None:  # Pillow releases the GIL while it decodes
      self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    for place, pixels in enumerate(self._pool.map(self._read, wanted.tolist())):
      images[place] = pixels
    return images

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self[:], dtype)


def memory() -> int:
  """The memory of this machine, in bytes."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
