"""Makes the step again at which the numbers of a run were not finite."""

from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.run import bad_numbers, checkpoint
from ckd_jax.run.given import NOTHING, Given
from ckd_jax.run.train import prepare
from ckd_jax.run.workdir import check_workdir, claimed
from ckd_jax.system import console


def replay(
  config,
  workdir: epath.PathLike,
  *,
  given: Given = NOTHING,
  flag_name: str = "--workdir",
) -> bad_numbers.Found:
  """Makes that step again, prints what it finds, and returns it.

  The teacher is not asked again. On the devices of the run the numbers are the
  same, bit for bit.

  Args:
    config: of the run.
    workdir: its folder.
    given: objects of a Python program, in place of names in the config.
    flag_name: the setting that names the folder, for messages.

  Raises:
    UserError: the run kept no such step.
  """
  workdir = epath.Path(workdir)
  check_workdir(workdir, config, flag_name)
  folder = workdir / bad_numbers.FOLDER
  if checkpoint.latest(folder) is None:
    raise UserError(
      f"there is no {folder}: no numbers of this run were found not to be "
      "finite"
    )
  with claimed(workdir, flag_name):
    run = prepare(config, workdir, given=given)
    stage = checkpoint.notes_of(folder).get("stage")
    at = run.context if stage is None else run.context.stages[stage]
    like = at.state if stage is None else at.begin
    restored = checkpoint.restore(folder, {"state": like})
    if restored is None:
      raise UserError(f"{folder} is damaged: the same command without --replay")
    step, trees, notes = restored
    state = trees["state"]
    context = bad_numbers.context_of(run.context, notes["rollbacks"], stage)
    examples = context.examples
    if context.feed:
      examples = next(context.feed(context.key, state.method, step))
    found = bad_numbers.look(run, context, stage, state, examples)
  console.say(f"\n{found}")
  same = "the same as" if repr(found) == notes["found"] else "not those of"
  console.say(f"these numbers are {same} the run's")
  return found
