"""Stages of a method before the main part: an adapter, or the trunk alone.

A stage has neither evaluations nor a best student: a short loop of its own
around the launcher is simpler than the one of `loop.py`.
"""

import jax
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, logger
from ckd_jax.run.context import RunContext
from ckd_jax.run.intervals import Intervals
from ckd_jax.run.launcher import Launcher, Timer
from ckd_jax.run.record import Record
from ckd_jax.run.skipping import Skips
from ckd_jax.run.stopping import Stop
from ckd_jax.step import SKIPPED, State, finish_stage, is_sound
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


def run_stages(
  context: RunContext,
  workdir,
  record: Record,
  stop: Stop,
  until: int | None = None,
) -> State:
  """Runs or resumes every stage.

  Args:
    context: programs, arrays and stages of the run.
    workdir: folder of the run, where stages keep their checkpoints.
    record: gets the ways back and the skipped steps of the stages.
    stop: ends a stage with a checkpoint.
    until: the number of stages to run; None is all of them.

  Returns:
    The state before the first step of what comes next.

  Raises:
    Diverged: the numbers of a stage are not finite.
  """
  state = context.stages[0].begin if context.stages else context.state
  if any(leaf.is_deleted() for leaf in jax.tree.leaves(state)):
    state = context.begin()  # a run that goes back took it over before
  for number, phase in enumerate(context.stages[:until]):
    try:
      state = _run_stage(context, workdir, number, state, record, stop)
    except logger.Diverged as error:
      told = f"stage {number + 1}: {error}"
      where = error.step, record.rollbacks, number
      raise logger.Diverged(told, *where) from error
    after = finish_stage(phase.stage, state, context.plan.recipe.transform)
    state = hosts.put_global(after, context.sharding)
  return state


def resume_stage(
  context: RunContext, workdir, number: int, state: State, record: Record
) -> tuple[int, State]:
  """Where a stage stands: its newest checkpoint, or its beginning.

  Args:
    context: of the run.
    workdir: folder of the run.
    number: index of the stage.
    state: before its first step.
    record: gets the ways back and the skipped steps that the checkpoint knows.

  Returns:
    (number of the steps done so far, the state after them)
  """
  like = {"state": context.stages[number].begin}
  restored = checkpoint.restore(_folder(workdir, number), like)
  if restored is None:
    return 0, state
  step, trees, notes = restored
  check_origin(context, notes, workdir)
  # A run that goes back again has gone back more often than its checkpoint.
  record.rollbacks = max(record.rollbacks, notes.get("rollbacks", 0))
  record.skipped = notes.get("skipped", 0)
  return step, trees["state"]


def in_stage(context: RunContext, number: int, rollbacks: int) -> RunContext:
  """The context of a stage, with its launches and its random numbers.

  Args:
    context: of the run.
    number: index of the stage.
    rollbacks: how often the run has gone back.
  """
  context = context.reordered(rollbacks)
  launch = context.stages[number].launch
  return context._replace(
    programs=context.programs._replace(launch=launch),
    key=jax.random.fold_in(context.key, number),
  )


def _folder(workdir, number: int) -> epath.Path:
  return workdir / "checkpoints" / f"stage_{number}"


def _run_stage(
  context: RunContext,
  workdir,
  number: int,
  state: State,
  record: Record,
  stop: Stop,
) -> State:
  """The state after the last step of a stage."""
  phase = context.stages[number]
  step, state = resume_stage(context, workdir, number, state, record)
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
  skips = context.plan.bad_numbers == "skip"
  counted = Skips(phase.steps)

  def enter(step, metrics):
    if skips:
      record.skipped += counted.enter(step, metrics)
      metrics = {**metrics, SKIPPED: record.skipped}
    if intervals.is_logged(step):
      show.training(step, metrics)

  # A stage's time is not in the record.
  launcher = Launcher(
    in_stage(context, number, record.rollbacks),
    lambda step: skips or intervals.is_logged(step),
    enter,
    Timer(),
  )
  while step < phase.steps:
    until = intervals.stop(step)
    state, step = launcher.run(state, step, until, stop.now)
    if not is_sound(state):
      raise logger.Diverged(f"a weight is not finite after step {step}", step)
    notes = {"rollbacks": record.rollbacks, "skipped": record.skipped}
    notes["origin"] = context.origin
    checkpoint.save(_folder(workdir, number), step, {"state": state}, notes)
    if stop.agreed():
      stop.end()
  show.finish()
  return state
