"""Several students in one program: an axis `students` before everything."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec


def shard_vmap(function: Callable, mesh: Mesh, out_axes=0) -> Callable:
  """`function` of every student at once, each device with its own students.

  Uses shard_map: XLA miscomputes the grouped 1x1 convolutions that vmap creates
  when groups are sharded (jaxlib 0.10, 0.12, CPU).

  Args:
    function: of one student; what it shards over `data` stays so.
    mesh: of axes `students` and `data`.
    out_axes: where the axis of students is in what it returns; one int, or one
      for each thing returned.
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
  """One tree whose leaves begin with the axis of students.

  Args:
    trees: alike, one for each student.
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
