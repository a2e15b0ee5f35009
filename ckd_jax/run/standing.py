"""Where a run stands: at its beginning, or at its newest checkpoint."""

from typing import NamedTuple, Protocol

from etils import epath

from ckd_jax.run import checkpoint, selection
from ckd_jax.run.context import RunContext
from ckd_jax.run.record import Record
from ckd_jax.run.stages import check_origin, run_stages
from ckd_jax.run.stopping import Stop
from ckd_jax.step import State
from ckd_jax.system import compile_cache, console, hosts


class Standing(NamedTuple):
  """Where a run stands.

  Attributes:
    step: number of the steps done so far.
    state: student, method and optimizer after them.
    best: the weights to report, by mode of `ckd_jax.offset`.
    record: accuracies, plateau and times.
  """

  step: int
  state: State
  best: dict[str, selection.Snapshot]
  record: Record


class Trainable(Protocol):
  """A run that is ready for its first step."""

  @property
  def workdir(self) -> epath.Path: ...

  @property
  def context(self) -> RunContext: ...


def start_or_resume(
  run: Trainable,
  stop: Stop,
  rollbacks: int | None = None,
  at_most: int | None = None,
) -> Standing:
  """The beginning, or the newest checkpoint, after the method's stages.

  Args:
    run: ready for its first step.
    stop: ends a stage.
    rollbacks: how often the run has gone back to a checkpoint; None is as often
      as the checkpoint says.
    at_most: the newest step that is resumed at; None is any.
  """
  context = run.context
  record = selection.start(context)
  record.rollbacks = rollbacks or 0
  state = run_stages(context, run.workdir, record, stop)
  best = {mode: selection.snapshot(context, state) for mode in record.modes}
  like = {"state": state, "best": best}
  folder = run.workdir / "checkpoints"
  restored = checkpoint.restore(folder, like, at_most=at_most)
  if restored is None:
    return Standing(0, state, best, record)
  step, trees, notes = restored
  check_origin(context, notes, run.workdir)
  console.say(f"resuming at step {step}")
  record = Record.from_json({"origin": context.origin} | notes)
  if rollbacks is not None:
    record.rollbacks = rollbacks
  if record.devices not in ("", context.devices) and hosts.first():
    console.note(
      f"the run began on {record.devices} and goes on on {context.devices}: "
      "sums are in another order, so its last digits may differ"
    )
  return Standing(step, trees["state"], trees["best"], record)


def save(run: Trainable, standing: Standing) -> None:
  """Writes a checkpoint, from which the same command resumes.

  Raises:
    UserError: the folder cannot be written.
  """
  trees = {"state": standing.state, "best": standing.best}
  folder = run.workdir / "checkpoints"
  checkpoint.save(folder, standing.step, trees, standing.record.to_json())
  compile_cache.share()
