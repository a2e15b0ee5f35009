"""The compiled programs of a run, shared by runs that differ in little."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ckd_jax.run.phase import Phase
from ckd_jax.run.plan import Plan
from ckd_jax.step import (
  KEEP_GRADIENT,
  Encode,
  Examples,
  Forward,
  Live,
  Predict,
  Recipe,
  State,
  Step,
  finish_stage,
  guarded,
  init_state,
  make_batch_sharder,
  make_branches,
  make_encode,
  make_forward,
  make_predict,
  make_step,
  make_vectors,
  per_device,
  repeat,
  replicated,
  staged,
)

_LAUNCH = 32  # steps per launch on an accelerator, which then never waits


class Programs(NamedTuple):
  """Programs that runs of another seed, budget or rate share.

  Attributes:
    begin: jitted (key, examples) -> State.
    step: one training step, not jitted, to be vmapped.
    launch: (times) -> a jitted Step of so many steps; metrics are [times].
    forward: (params, state, stored inputs) -> logits, not jitted.
    predict: (params, state, Placed) -> float32[n, classes] on the host.
    predict_branches: the same to float32[n, branches, classes].
    vectors: (params, state, stored inputs) -> embeddings, not jitted.
    encode: (params, state, Placed) -> the state of a tower that read these
      documents.
    learning_rate: the highest rate of the schedule in the step.
  """

  begin: Callable[[jax.Array, Examples], State]
  step: Step
  launch: Callable[[int], Step]
  forward: Forward
  predict: Predict
  predict_branches: Predict
  vectors: Forward
  encode: Encode
  learning_rate: float


def make_programs(
  plan: Plan, mesh: Mesh, live: Live | None, step: Step
) -> Programs:
  """Jits what a run does; nothing is compiled before it is first called.

  Args:
    plan: gives the recipe and the learning rate.
    mesh: devices, with axes `students` and `data`.
    live: teachers that answer inside the step; None where the table does.
    step: from `make_own_step`, for this plan.
  """
  replicas = replicated(mesh)
  recipe = plan.recipe
  forward = make_forward(recipe.model, recipe.view)
  vectors = make_vectors(recipe.model, recipe.view)
  return Programs(
    begin=jax.jit(
      lambda key, examples: init_state(key, recipe, examples, live=live),
      out_shardings=replicas,
    ),
    step=step,
    launch=make_launch(step, replicas),
    forward=forward,
    predict=make_predict(forward, replicas),
    predict_branches=make_predict(
      make_branches(recipe.model, recipe.view), replicas
    ),
    vectors=vectors,
    encode=make_encode(vectors, replicas),
    learning_rate=plan.learning_rate,
  )


def make_own_step(plan: Plan, mesh: Mesh, live: Live | None) -> Step:
  """The step of a run on these devices, not yet jitted.

  Args:
    plan: gives the recipe, and what happens to numbers that are not finite.
    mesh: devices, with axes `students` and `data`.
    live: teachers that answer inside the step; None where the table does.
  """
  recipe, shard = placed_recipe(plan, mesh), make_batch_sharder(mesh)
  return _careful(plan, make_step(recipe, live=live, shard=shard))


def _careful(plan: Plan, step: Step) -> Step:
  return guarded(step, advance=True) if plan.bad_numbers == "skip" else step


def make_launch(step: Step, replicas: NamedSharding) -> Callable[[int], Step]:
  """(times) -> `step` so many times in one launch, jitted once for each."""

  @functools.cache
  def launch(times: int):
    return jax.jit(
      repeat(step, times), donate_argnums=0, out_shardings=replicas
    )

  return launch


def default_launch(platform: str | None = None) -> int:
  """Steps per launch: on a CPU 1, where a loop in a program is slow.

  Args:
    platform: of the devices, "cpu", "gpu" or "tpu"; None is this process's.
  """
  return 1 if (platform or jax.default_backend()) == "cpu" else _LAUNCH


def longest_launch(plan: Plan, streamed: bool, mesh: Mesh) -> int:
  """Steps per launch, at most.

  Args:
    plan: whose `steps_per_launch` chooses, if it is not 0.
    streamed: whether the host sends inputs for one step at a time.
    mesh: devices, whose platform chooses the default.
  """
  if streamed:
    return 1
  platform = mesh.devices.flat[0].platform
  return plan.steps_per_launch or default_launch(platform)


def placed_recipe(plan: Plan, mesh: Mesh) -> Recipe:
  """The recipe of a plan's steps on these devices.

  Args:
    plan: gives the recipe and the kind of batch norm.
    mesh: devices, with axes `students` and `data`.
  """
  recipe = plan.recipe
  if plan.batch_norm == "device":
    return recipe._replace(model=per_device(recipe.model, mesh))
  return recipe


def make_phases(
  plan: Plan,
  mesh: Mesh,
  live: Live | None,
  state: State,
  examples: Examples,
  key: jax.Array,
) -> tuple[tuple[Phase, ...], State]:
  """The stages, jitted, and the state that the main part begins with.

  Args:
    plan: gives the method's stages and the recipe.
    mesh: devices, with axes `students` and `data`.
    live: teachers that answer inside the step; None where the table does.
    state: before the first stage.
    examples: the table; a first batch shows which parameters a loss reaches.
    key: the run's random key, the same for every step.
  """
  where = {"live": live, "shard": make_batch_sharder(mesh)}
  made = []
  for stage in plan.recipe.method.stages:
    recipe = staged(placed_recipe(plan, mesh), stage)
    reached = make_step(recipe._replace(transform=KEEP_GRADIENT), **where)
    reached = jax.jit(reached, out_shardings=replicated(mesh))
    # Freeze parameters with zero gradient, or weight decay shrinks them. Test
    # at perturbed weights: a zero-initialised layer hides those behind it.
    elsewhere = state._replace(params=jitter(state.params))
    gradient = reached(elsewhere, examples, key)[0].optimizer
    trainable = jax.tree.map(
      lambda leaf: bool(np.any(np.asarray(leaf))), gradient
    )
    if not stage.trains_student:
      frozen = jax.tree.map(lambda moves: False, trainable["student"])
      trainable = {**trainable, "student": frozen}
    steps = stage.epochs * plan.recipe.task.steps_per_epoch
    step = make_step(recipe, trainable=trainable, **where)
    launch = make_launch(_careful(plan, step), replicated(mesh))
    made.append(Phase(stage, launch, steps, state, trainable))
    state = finish_stage(stage, state, plan.recipe.transform)
  return tuple(made), state


def jitter(params):
  """The same tree with noise added to every leaf."""
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(0), len(leaves))
  noisy = [
    leaf + 0.1 * jax.random.normal(key, leaf.shape, leaf.dtype)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(structure, noisy)
