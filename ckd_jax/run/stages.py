"""What a method trains before the main part: an adapter, or the trunk alone."""

import collections
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax.errors import UserError
from ckd_jax.methods import Stage
from ckd_jax.run import checkpoint, logger
from ckd_jax.run.loop import Launcher, Rhythm, Watch
from ckd_jax.step import State
from ckd_jax.system import hosts


class Phase(NamedTuple):
  """A stage of a method, compiled for one run."""

  stage: Stage
  launch: Callable  # as in `assemble.Fit`
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


def check_origin(fit, notes: dict, workdir) -> None:
  """Refuses to go on with other images or answers than a run began with."""
  before = notes.get("origin", fit.origin)
  for what, digest in fit.origin.items():
    if before[what] != digest:
      raise UserError(
        f"{workdir} was begun with other {what}: put them back, or give another"
        " --workdir"
      )


def run(config, fit, workdir) -> State:
  """Runs or resumes every stage; returns what the main part begins with."""
  watch = Watch(collections.defaultdict(float))  # not a part of the run's own
  state = fit.stages[0].begin if fit.stages else fit.state
  for number, phase in enumerate(fit.stages):
    folder = workdir / "checkpoints" / f"stage_{number}"
    restored = checkpoint.restore(folder, {"state": phase.begin})
    first = 0
    if restored is not None:
      first, trees, kept = restored
      check_origin(fit, kept, workdir)
      state = trees["state"]
    rhythm = Rhythm(
      phase.steps, phase.steps, config.checkpoint_every, config.log_every
    )
    if first < rhythm.steps:
      show = logger.Display(
        workdir / f"metrics_stage_{number}.jsonl",
        phase.steps,
        fit.images_per_step,
        first=first,
        log=hosts.first(),
        bar=hosts.first(),
      )
      launcher = Launcher(
        fit._replace(key=jax.random.fold_in(fit.key, number)),
        phase.launch,
        rhythm,
        show.training,
        watch,
      )
    while first < rhythm.steps:
      stop = rhythm.stop(first)
      state = launcher.run(state, first, stop)
      first = stop
      checkpoint.save(folder, first, {"state": state}, {"origin": fit.origin})
    state = hosts.put(finish(phase.stage, state, fit.transform), fit.everywhere)
  return state
