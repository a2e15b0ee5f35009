"""Several students in one program, along a first axis `students`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

OfStudent = Callable[..., Any]  # trees of arrays -> a tree of arrays


def shard_vmap(function: OfStudent, mesh: Mesh, out_axes=0) -> OfStudent:
  """Applies a function to all students, each device to its own.

  Uses shard_map: XLA miscomputes the grouped 1x1 convolutions that vmap creates
  when groups are sharded (jaxlib 0.10, 0.12, CPU).

  Args:
    function: of one student's arrays; its shardings over `data` are kept.
    mesh: devices, with axes `students` and `data`.
    out_axes: position of the axis of students in the results; one int, or a
      tuple with one for each result.
  """

  def place(axis):
    return PartitionSpec(*[None] * axis, "students")

  return jax.shard_map(
    jax.vmap(function, out_axes=out_axes),
    mesh=mesh,
    in_specs=place(0),
    out_specs=jax.tree.map(place, out_axes),
    axis_names={"students"},
    check_vma=False,
  )


def stack(trees: Sequence, sharding):
  """Stacks trees along a new first axis of students.

  Args:
    trees: one pytree per student, all of one structure.
    sharding: of the stacked leaves.
  """
  stacked = jax.jit(
    lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees),
    out_shardings=sharding,
  )
  return stacked(*trees)


@jax.jit
def take(tree, place: int):
  """The part of one student of a stacked tree."""
  return jax.tree.map(lambda x: x[place], tree)


@functools.partial(jax.jit, donate_argnums=0)
def replace(tree, place: int, part):
  """The stacked tree with another part for one student; `tree` is donated."""
  return jax.tree.map(lambda x, y: x.at[place].set(y), tree, part)
