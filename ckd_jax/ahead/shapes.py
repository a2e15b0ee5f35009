"""What a launch is given, as shapes: nothing is allocated."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax.data import shapes, take
from ckd_jax.methods import Outputs
from ckd_jax.run import Plan, Programs
from ckd_jax.step import (
  Examples,
  Rows,
  finish_stage,
  gather,
  pad,
  replicated,
)

_FEW = 2  # examples of a table small enough to be made
_LARGE = 2**18  # numbers in a memory


class Arguments(NamedTuple):
  """Of a jitted step, in its order: jax.ShapeDtypeStruct that know their place.

  Attributes:
    state: a `State`.
    examples: an `Examples`.
    key: of all steps.
  """

  state: Any
  examples: Any
  key: Any


def arguments(
  plan: Plan,
  programs: Programs,
  outputs: tuple[Outputs, ...],
  mesh: Mesh,
  *,
  weights: tuple = (),
  streamed: bool = False,
  finished: int | None = None,
) -> Arguments:
  """The shapes that a run's launches are called with.

  Args:
    plan: what the run will do.
    programs: of the plan, on this mesh.
    outputs: shapes [rows, ...] of the answers of each teacher.
    mesh: the devices, which need not be there.
    weights: shapes of those of the teachers that answer inside the step.
    streamed: whether the host sends the inputs of each step.
    finished: stages of the method that are done; None: all of them.
  """
  everywhere = replicated(mesh)
  examples = _table(plan, outputs, streamed)._replace(live=weights)
  key = jax.eval_shape(jax.random.key, 0)
  state = jax.eval_shape(programs.begin, key, examples)
  for stage in plan.method.stages[:finished]:
    state = jax.eval_shape(
      lambda state, stage=stage: finish_stage(
        stage, state, plan.recipe.transform
      ),
      state,
    )
  state, examples, key = on((state, examples, key), everywhere)
  if streamed:
    examples = _with_batch(plan, state, examples, mesh)
  return Arguments(state, examples, key)


def tables(given: Arguments, streamed: bool) -> dict[str, jax.ShapeDtypeStruct]:
  """{name: array} of the arrays of which no launch should make a copy.

  Inputs, answers, and a method's large memories; not labels, which are small,
  nor what is streamed. Shapes are without the padding of `Rows`.
  """
  examples = given.examples
  held = {"inputs": () if streamed else examples.inputs}
  for number, teacher in enumerate(examples.teachers):
    held[f"teachers.{number}"] = teacher._asdict()
  large = [
    leaf
    for leaf in jax.tree.leaves(given.state.method)
    if math.prod(leaf.shape) > _LARGE
  ]
  held["memory"] = large
  leaves = jax.tree_util.tree_leaves_with_path(
    held, is_leaf=lambda x: isinstance(x, Rows)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): (
      jax.ShapeDtypeStruct(leaf.shape, leaf.flat.dtype)
      if isinstance(leaf, Rows)
      else leaf
    )
    for path, leaf in leaves
  }


def images_per_step(plan: Plan, given: Arguments) -> int:
  """How many rows go through the student in a step."""
  seen = jax.eval_shape(
    lambda key, state, examples: (
      plan.method.prepare(
        key, gather(examples, _sampled(plan, key, state))
      ).inputs
    ),
    given.key,
    given.state,
    given.examples._replace(index=None),
  )
  return math.prod(jax.tree.leaves(seen)[0].shape[:2])


def _table(plan: Plan, outputs, streamed: bool) -> Examples:
  """The table of a run: what two small ones show, made larger."""

  def of(shape, dtype):
    return np.zeros((_FEW, *shape[1:]), dtype)

  def few_of(tree):
    return jax.tree.map(lambda x: of(x.shape, x.dtype), tree)

  inputs = take(few_of(plan.inputs), slice(1 if streamed else _FEW))
  answers = few_of(outputs)
  few = Examples(inputs, plan.recipe.task.labels[:_FEW], answers)
  one, two = (pad(few, rows) for rows in (_FEW + 1, _FEW + 2))
  rows = plan.table_rows

  def grown(one, two):
    shape = [
      a + (b - a) * (rows - _FEW - 1)
      for a, b in zip(np.shape(one), np.shape(two), strict=True)
    ]
    return jax.ShapeDtypeStruct(tuple(shape), one.dtype)

  return jax.tree.map(grown, one, two)


def on(tree, sharding: NamedSharding):
  """The same shapes, in a place."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


def _sampled(plan: Plan, key, state):
  return plan.method.sample(
    key, jnp.zeros((), jnp.int32), plan.recipe.task, state.method
  )


def _with_batch(plan: Plan, state, examples: Examples, mesh: Mesh) -> Examples:
  """The examples of one step, as the host streams them."""
  index = jax.eval_shape(
    lambda key, state: _sampled(plan, key, state), jax.random.key(0), state
  )
  rows = NamedSharding(mesh, PartitionSpec("data"))
  return examples._replace(
    index=on(index, replicated(mesh)),
    inputs=on(batch_of(shapes(plan.inputs), index.shape), rows),
  )


def batch_of(rows: Any, lead: tuple[int, ...]) -> Any:
  """Shapes [n, ...] as those of a batch, [*lead, ...]."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((*lead, *x.shape[1:]), x.dtype), rows
  )
