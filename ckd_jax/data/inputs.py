"""Inputs of any kind: a tree whose leaves are [rows, ...].

Images are one leaf, uint8[n, h, w, c], in memory or in files (`Lazy`); texts
are one, int32[n, length].
"""

import math
from typing import Any

import jax

from ckd_jax.data.lazy import Lazy


def count(inputs: Any) -> int:
  """The number of rows."""
  return len(jax.tree.leaves(inputs)[0])


def take(inputs: Any, rows) -> Any:
  """The rows that a slice or int[m] names, in memory."""
  return jax.tree.map(lambda leaf: leaf[rows], inputs)


def subset(inputs: Any, rows) -> Any:
  """A selection of rows; `Lazy` images stay in their files."""
  return jax.tree.map(
    lambda leaf: leaf.subset(rows) if isinstance(leaf, Lazy) else leaf[rows],
    inputs,
  )


def shapes(inputs: Any, rows: int | None = None) -> Any:
  """Shapes and types, for tracing.

  Args:
    inputs: of n rows.
    rows: number of rows in place of n; None keeps it.

  Returns:
    A tree of jax.ShapeDtypeStruct.
  """

  def shape(leaf):
    first = leaf.shape[0] if rows is None else rows
    return jax.ShapeDtypeStruct((first, *leaf.shape[1:]), leaf.dtype)

  return jax.tree.map(shape, inputs)


def size(inputs: Any) -> int:
  """The number of bytes that all rows take."""
  return sum(
    leaf.dtype.itemsize * math.prod(leaf.shape)
    for leaf in jax.tree.leaves(inputs)
  )
