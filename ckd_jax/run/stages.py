"""Stages of a method before the main part: an adapter, or the trunk alone.

A stage has neither evaluations nor a best student: a short loop of its own
around the launcher is simpler than the one of `loop.py`.
"""

import jax

from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, logger
from ckd_jax.run.context import RunContext
from ckd_jax.run.intervals import Intervals
from ckd_jax.run.launcher import Launcher, Timer
from ckd_jax.run.phase import Phase
from ckd_jax.step import State, finish_stage
from ckd_jax.system import hosts


def check_origin(context: RunContext, notes: dict, workdir) -> None:
  """Refuses to resume with other images or answers.

  Args:
    context: of the resumed run, with the digests of today.
    notes: of its checkpoint, with the digests that it began with.
    workdir: folder of the run, for the message.
  """
  before = notes.get("origin", context.origin)
  for what, digest in context.origin.items():
    if before[what] != digest:
      raise UserError(
        f"{workdir} was begun with other {what}: put them back, or give another"
        " --workdir"
      )


def run_stages(context: RunContext, workdir) -> State:
  """Runs or resumes every stage.

  Args:
    context: programs, arrays and stages of the run.
    workdir: folder of the run, where stages keep their checkpoints.

  Returns:
    The state before the first step of the main part.
  """
  state = context.stages[0].begin if context.stages else context.state
  for number, phase in enumerate(context.stages):
    state = _run_stage(context, workdir, number, phase, state)
    after = finish_stage(phase.stage, state, context.plan.recipe.transform)
    state = hosts.put_global(after, context.sharding)
  return state


def _run_stage(
  context: RunContext, workdir, number: int, phase: Phase, state: State
) -> State:
  """The state after the last step of a stage."""
  folder = workdir / "checkpoints" / f"stage_{number}"
  restored = checkpoint.restore(folder, {"state": phase.begin})
  step = 0
  if restored is not None:
    step, trees, notes = restored
    check_origin(context, notes, workdir)
    state = trees["state"]
  if step >= phase.steps:
    return state
  every = context.plan.intervals
  intervals = Intervals(phase.steps, phase.steps, every.save, every.log)
  show = logger.Display(
    workdir / f"metrics_stage_{number}.jsonl",
    phase.steps,
    context.images_per_step,
    kind=context.plan.recipe.view.kind,
    first=step,
    log=hosts.first(),
    bar=hosts.first(),
  )
  own = context._replace(
    programs=context.programs._replace(launch=phase.launch),
    key=jax.random.fold_in(context.key, number),
  )
  # A stage's time is not in the record.
  launcher = Launcher(own, intervals.is_logged, show.training, Timer())
  while step < phase.steps:
    stop = intervals.stop(step)
    state = launcher.run(state, step, stop)
    step = stop
    checkpoint.save(folder, step, {"state": state}, {"origin": context.origin})
  show.finish()
  return state
