"""A table as it lies on the device: a flat row for each example."""

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """Arrays of one shape, one for each example, gathered without a copy.

  A TPU lays out [rows, h, w, c] for convolutions, so it would copy the whole
  table at every launch before it gathers from it. A flat row lies as it is
  read, however many rows there are.

  Attributes:
    flat: [rows, width], or with the axis of students before them.
    inner: the shape of one example; its product is the width.
  """

  flat: jax.Array
  inner: tuple[int, ...] = dataclasses.field(metadata={"static": True})

  @classmethod
  def of(cls, array) -> "Rows":
    """Flattens [rows, ...]."""
    return cls(array.reshape(len(array), -1), array.shape[1:])

  @property
  def shape(self) -> tuple[int, ...]:
    return (len(self.flat), *self.inner)

  def __len__(self) -> int:
    return len(self.flat)

  def __getitem__(self, index: jax.Array) -> jax.Array:
    """The examples that int[...] names, [..., *inner]."""
    return self.flat[index].reshape(*index.shape, *self.inner)


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
