"""What is compiled for a run, and serves runs that differ in little as well."""

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
  Examples,
  Forward,
  Live,
  Predict,
  State,
  Step,
  finish_stage,
  init_state,
  make_batch_sharder,
  make_forward,
  make_predict,
  make_step,
  repeat,
  replicated,
  staged,
)

_LAUNCH = 32  # steps a launch on an accelerator, which then never waits for us


class Programs(NamedTuple):
  """What is compiled; runs that differ in seed, budget or rate share it.

  Attributes:
    begin: jitted (key, examples) -> State.
    step: not jitted, for those who vmap it.
    launch: (times) -> a jitted Step of so many steps; metrics are of [times].
    forward: (params, state, uint8 images) -> logits, not jitted.
    predict: (params, state, Images) -> float32[n, classes] on the host.
    learning_rate: the highest rate of the schedule in the step.
  """

  begin: Callable[[jax.Array, Examples], State]
  step: Step
  launch: Callable[[int], Step]
  forward: Forward
  predict: Predict
  learning_rate: float


def make_programs(
  plan: Plan, mesh: Mesh, live: Live | None, step: Step
) -> Programs:
  """Jits what a run does; nothing is compiled before it is first called.

  Args:
    plan: what the run will do.
    mesh: the devices.
    live: teachers that answer inside the step.
    step: of the plan, from `make_step`.
  """
  replicas = replicated(mesh)
  recipe = plan.recipe
  forward = make_forward(recipe.model, mean=recipe.mean, std=recipe.std)
  return Programs(
    begin=jax.jit(
      lambda key, examples: init_state(key, recipe, examples, live=live),
      out_shardings=replicas,
    ),
    step=step,
    launch=make_launch(step, replicas),
    forward=forward,
    predict=make_predict(forward, replicas),
    learning_rate=plan.learning_rate,
  )


def make_launch(step: Step, replicas: NamedSharding) -> Callable[[int], Step]:
  """(times) -> `step` so many times in one launch, jitted once for each."""

  @functools.cache
  def launch(times: int):
    return jax.jit(
      repeat(step, times), donate_argnums=0, out_shardings=replicas
    )

  return launch


def default_launch(platform: str | None = None) -> int:
  """Steps a launch: a loop inside a program costs a CPU dearly.

  Args:
    platform: of the devices; None is that of those that are here.
  """
  return 1 if (platform or jax.default_backend()) == "cpu" else _LAUNCH


def longest_launch(plan: Plan, streamed: bool, mesh: Mesh) -> int:
  """Steps in a launch, at most; streamed images come for one step each."""
  if streamed:
    return 1
  platform = mesh.devices.flat[0].platform
  return plan.steps_per_launch or default_launch(platform)


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
    plan: what the run will do.
    mesh: the devices.
    live: teachers that answer inside the step.
    state: before everything.
    examples: a first batch of which tells what a stage's loss reaches.
    key: of all steps.
  """
  where = {"live": live, "shard": make_batch_sharder(mesh)}
  made = []
  for stage in plan.recipe.method.stages:
    recipe = staged(plan.recipe, stage)
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
    launch = make_launch(step, replicated(mesh))
    made.append(Phase(stage, launch, steps, state))
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
