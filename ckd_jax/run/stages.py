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
from ckd_jax.run.skipping import Skips
from ckd_jax.run.stopping import Stop
from ckd_jax.step import State, finish_stage, is_sound
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


def run_stages(context: RunContext, workdir, stop: Stop) -> State:
  """Runs or resumes every stage.

  Args:
    context: programs, arrays and stages of the run.
    workdir: folder of the run, where stages keep their checkpoints.
    stop: ends a stage with a checkpoint.

  Returns:
    The state before the first step of the main part.

  Raises:
    Diverged: the numbers of a stage are not finite.
  """
  state = context.stages[0].begin if context.stages else context.state
  if any(leaf.is_deleted() for leaf in jax.tree.leaves(state)):
    state = context.begin()  # a run that goes back took it over before
  for number, phase in enumerate(context.stages):
    try:
      state = _run_stage(context, workdir, number, phase, state, stop)
    except logger.Diverged as error:
      raise logger.Diverged(f"stage {number + 1}: {error}") from error
    after = finish_stage(phase.stage, state, context.plan.recipe.transform)
    state = hosts.put_global(after, context.sharding)
  return state


def _run_stage(
  context: RunContext,
  workdir,
  number: int,
  phase: Phase,
  state: State,
  stop: Stop,
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
  skips = context.plan.bad_numbers == "skip"
  counted = Skips()

  def enter(step, metrics):
    if skips:
      counted.enter(step, metrics)
    if intervals.is_logged(step):
      show.training(step, metrics)

  # A stage's time is not in the record.
  launcher = Launcher(
    own, lambda step: skips or intervals.is_logged(step), enter, Timer()
  )
  while step < phase.steps:
    until = intervals.stop(step)
    state, step = launcher.run(state, step, until, stop.now)
    if not is_sound(state):
      raise logger.Diverged(f"a weight is not finite after step {step}")
    checkpoint.save(folder, step, {"state": state}, {"origin": context.origin})
    if stop.agreed():
      stop.end()
  show.finish()
  return state
