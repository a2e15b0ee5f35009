"""What is compiled for a run, and serves runs that differ in little as well."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax.run import stages
from ckd_jax.run.plan import Plan, begin, gradients_of, staged, step_of
from ckd_jax.run.stages import Phase
from ckd_jax.step import Examples, Live, State, evaluate, repeat
from ckd_jax.step.sharding import divider

_LAUNCH = 32  # steps a launch on an accelerator, which then never waits for us


class Programs(NamedTuple):
  """What is compiled; runs that differ in seed, budget or rate share it."""

  begin: Callable  # jitted (key, examples) -> State
  step: Callable  # (state, examples, key) -> (state, metrics), not jitted
  launch: Callable
  # (times) -> jitted (state, examples, key) -> (state, metrics of [times])
  forward: Callable  # (params, state, uint8 images) -> logits, not jitted
  predict: Callable  # (params, state, evaluate.Images) -> logits on the host
  learning_rate: float  # of the schedule in it


def make(
  settled: Plan, mesh: Mesh, live: Live | None, learning_rate: float
) -> Programs:
  """Jits what a run does; nothing is compiled before it is first called.

  Args:
    settled: the run.
    mesh: the devices.
    live: teachers that answer inside the step.
    learning_rate: of the schedule that the plan holds.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  forward = evaluate.make_forward(
    settled.model, mean=settled.mean, std=settled.std
  )
  step = step_of(settled, live=live, shard=divider(mesh))
  return Programs(
    begin=jax.jit(
      lambda key, examples: begin(settled, key, examples, live),
      out_shardings=everywhere,
    ),
    step=step,
    launch=_launches(step, everywhere),
    forward=forward,
    predict=evaluate.make_predict(forward, everywhere),
    learning_rate=learning_rate,
  )


def _launches(step: Callable, everywhere: NamedSharding) -> Callable:
  """(times) -> `step` so many times in one launch, jitted once for each."""

  @functools.cache
  def launch(times: int):
    return jax.jit(
      repeat(step, times), donate_argnums=0, out_shardings=everywhere
    )

  return launch


def default_launch() -> int:
  """Steps a launch: a loop inside a program costs a CPU dearly."""
  return 1 if jax.default_backend() == "cpu" else _LAUNCH


def phases(
  settled: Plan,
  mesh: Mesh,
  live: Live | None,
  state: State,
  examples: Examples,
  key: jax.Array,
) -> tuple[tuple[Phase, ...], State]:
  """The stages, jitted, and the state that the main part begins with.

  Args:
    settled: the run.
    mesh: the devices.
    live: teachers that answer inside the step.
    state: before everything.
    examples: a first batch of which tells what a stage's loss reaches.
    key: of the run.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  where = {"live": live, "shard": divider(mesh)}
  made = []
  for stage in settled.method.stages:
    part = staged(settled, stage)
    gradients = jax.jit(gradients_of(part, **where), out_shardings=everywhere)
    # What the loss does not reach must not be decayed either. Judged at random
    # weights: a zero among the first ones may hide what is reached later.
    elsewhere = state._replace(params=jitter(state.params))
    trains = jax.tree.map(
      lambda leaf: bool(np.any(np.asarray(leaf))),
      gradients(elsewhere, examples, key)[0],
    )
    if not stage.trains_student:
      student = jax.tree.map(lambda moves: False, trains["student"])
      trains = {**trains, "student": student}
    steps = stage.epochs * settled.task.steps_per_epoch
    launch = _launches(step_of(part, trains=trains, **where), everywhere)
    made.append(Phase(stage, launch, steps, state))
    state = stages.finish(stage, state, settled.transform)
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
