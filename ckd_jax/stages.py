"""What a method trains before the main part: an adapter, or the trunk alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax import checkpoint, logger
from ckd_jax.methods import Stage
from ckd_jax.step import State


class Phase(NamedTuple):
  """A stage of a method, compiled for one run."""

  stage: Stage
  step: Callable  # jitted (state, examples, key) -> (state, metrics)
  steps: int
  begin: State  # before its first step, if nothing comes before it


def finish(stage: Stage, state: State, transform) -> State:
  """The state after a stage: its heads passed on, momentum and step at zero."""
  heads, memory = stage.finish(state.params["method"], state.method)
  params = {"student": state.params["student"], "method": heads}
  return state._replace(
    step=jnp.zeros_like(state.step),
    params=params,
    method=memory,
    optimizer=transform.init(params),
  )


def run(config, fit, workdir) -> State:
  """Runs or resumes every stage; returns what the main part begins with."""
  state = fit.stages[0].begin if fit.stages else fit.state
  for number, phase in enumerate(fit.stages):
    folder = workdir / "checkpoints" / f"stage_{number}"
    restored = checkpoint.restore(folder, {"state": phase.begin})
    first = 0
    if restored is not None:
      first, trees, _ = restored
      state = trees["state"]
    key = jax.random.fold_in(fit.key, number)
    metrics_path = workdir / f"metrics_stage_{number}.jsonl"
    show = None
    for step in range(first + 1, phase.steps + 1):
      show = show or logger.Display(
        metrics_path, phase.steps, fit.images_per_step, first=first
      )
      state, metrics = phase.step(state, fit.examples, key)
      if fit.one_at_a_time:
        jax.block_until_ready(state.step)
      if step % config.log_every == 0 or step == phase.steps:
        show.training(step, metrics)
      if step % config.checkpoint_every == 0 or step == phase.steps:
        checkpoint.save(folder, step, {"state": state}, {})
    state = jax.device_put(
      finish(phase.stage, state, fit.transform), fit.everywhere
    )
  return state
