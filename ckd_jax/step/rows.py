"""A table as it lies on the device: a flat row for each example."""

import dataclasses
import math

import jax
import numpy as np

_LANES = 128  # of a TPU's memory: a row takes up a multiple of it
_WIDE = 2**16  # numbers in a row


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """Arrays of one shape, one for each example, gathered without a copy.

  A TPU lays out [rows, h, w, c] for convolutions, and turns [rows, few] over:
  it would copy the whole table at every launch before it gathers from it. Whole
  rows of lanes lie as they are read, however many there are.

  Attributes:
    flat: [rows, width], or with the axis of students before them; the end of
      each row is padding.
    inner: the shape of one example.
  """

  flat: jax.Array
  inner: tuple[int, ...] = dataclasses.field(metadata={"static": True})

  @classmethod
  def of(cls, array: np.ndarray) -> "Rows":
    """Flattens [rows, ...]."""
    flat = array.reshape(len(array), -1)
    padding = -flat.shape[1] % _LANES
    return cls(np.pad(flat, [(0, 0), (0, padding)]), array.shape[1:])

  @property
  def shape(self) -> tuple[int, ...]:
    return (len(self.flat), *self.inner)

  def __len__(self) -> int:
    return len(self.flat)

  def __getitem__(self, index: jax.Array) -> jax.Array:
    """The examples that int[...] names, [..., *inner]."""
    width = math.prod(self.inner)
    rows = self.flat[index][..., :width]
    if width > _WIDE:
      # Lines first: libtpu 0.0.42 runs out of fast memory where it lays out 128
      # images of 224 pixels at once.
      lines = rows.reshape(*index.shape, self.inner[0], -1)
      rows = jax.lax.optimization_barrier(lines)
    return rows.reshape(*index.shape, *self.inner)


def take_rows(tables, index: jax.Array):
  """The examples that `index` names, of every table of a tree.

  Args:
    tables: tree of `Rows` and of arrays [rows, ...].
    index: int32[...].

  Returns:
    The same tree of arrays [..., *inner].
  """
  return jax.tree.map(
    lambda table: table[index], tables, is_leaf=lambda x: isinstance(x, Rows)
  )
