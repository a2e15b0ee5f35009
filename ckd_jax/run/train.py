"""The story of a run: ask once, compare, update, validate, report."""

import time
from typing import Any, NamedTuple

from etils import epath
from jax.sharding import Mesh

from ckd_jax import config as configuration
from ckd_jax.data import Dataset
from ckd_jax.errors import UserError
from ckd_jax.run import logger, outcome, saved, selection, summary
from ckd_jax.run.answers import Collected, collect
from ckd_jax.run.bad_numbers import rollbacks_after
from ckd_jax.run.context import RunContext, assemble
from ckd_jax.run.dataset import load_dataset
from ckd_jax.run.given import NOTHING, Given
from ckd_jax.run.logger import Diverged
from ckd_jax.run.loop import train
from ckd_jax.run.plan import Plan, make_plan
from ckd_jax.run.programs import make_own_step, make_programs
from ckd_jax.run.rehearsal import rehearsed
from ckd_jax.run.standing import Standing, save, start_or_resume
from ckd_jax.run.stopping import Stop, stoppable
from ckd_jax.run.workdir import check_workdir, claimed
from ckd_jax.step import make_mesh
from ckd_jax.system import console, files, hosts, sealed


class Run(NamedTuple):
  """A run that is ready for its first step.

  Attributes:
    plan: what was settled before the teacher was asked.
    workdir: its folder.
    dataset: its images and labels.
    answers: the teacher's, and what they cost.
    context: programs, and arrays on the devices.
    began: time.monotonic() at its start, in seconds.
  """

  plan: Plan
  workdir: epath.Path
  dataset: Dataset
  answers: Collected
  context: RunContext
  began: float


def run(
  config,
  workdir: epath.PathLike,
  *,
  given: Given = NOTHING,
  flag_name: str = "--workdir",
  wait: bool = False,
) -> dict[str, Any]:
  """Distils a student as `config` says; returns what summary.json holds.

  The same call resumes an unfinished run from its newest checkpoint and ends
  with the same student, bit for bit; for a finished one it returns the result.

  Args:
    config: a ConfigDict, complete and checked.
    workdir: folder for everything that the run writes.
    given: objects of a Python program, in place of names in the config.
    flag_name: the setting that names the folder, for messages.
    wait: whether to wait for another process that uses the folder, as runs do
      that share a teacher.

  Raises:
    UserError: anything that the user can mend.
  """
  workdir = epath.Path(workdir)
  check_workdir(workdir, config, flag_name)  # before any waiting
  hosts.assert_equal("values in its config", configuration.digest(config))
  with claimed(workdir, flag_name, wait=wait):
    finished = check_workdir(workdir, config, flag_name)
    if finished is not None:
      console.say(f"{workdir} is finished")
      console.say(logger.header(outcome.result(finished)))
      return finished
    try:
      ready = prepare(config, workdir, given=given)
      with stoppable() as stop:
        return conclude(ready, trained(ready, stop), stop)
    except KeyboardInterrupt as stopped:
      where = str(stopped) or saved.where_it_stands(workdir)
      raise KeyboardInterrupt(where) from stopped


def trained(run: Run, stop: Stop) -> Standing:
  """Trains a run to its end, with the ways back that its config allows.

  Args:
    run: ready for its first step.
    stop: ends training with a checkpoint.

  Raises:
    Diverged: its numbers are not finite.
  """
  rollbacks = None
  try:
    while True:
      try:
        standing = start_or_resume(run, stop, rollbacks)
        [(_, ended)] = train([run], [standing], stop)
      except Diverged as error:  # in a stage
        ended = error
      if not isinstance(ended, Diverged):
        return ended
      rollbacks = rollbacks_after(run, ended)
  except Diverged as error:
    kept = saved.what_is_saved(run.workdir)
    raise Diverged(f"{error}; {kept}", error.step) from error


def prepare(
  config,
  workdir: epath.Path,
  *,
  given: Given = NOTHING,
  mesh: Mesh | None = None,
  like: Run | None = None,
) -> Run:
  """Reads the data, asks the teacher, and prints the header.

  Args:
    config: a ConfigDict, complete and checked.
    workdir: folder for everything that the run writes.
    given: objects of a Python program, in place of names in the config.
    mesh: devices, with axes `students` and `data`; None is all of them, for one
      student.
    like: a run that differs in seed, budget or rate alone; its programs are
      used again.

  Raises:
    UserError: anything that the user can mend.
  """
  began = time.monotonic()
  dataset = like.dataset if like else load_dataset(config, given.dataset)
  plan = rehearsed(make_plan(config, dataset, given))
  mesh = mesh or make_mesh(plan.recipe.task.batch_size)
  answers = ask_teacher(plan, dataset, mesh, workdir)
  if like:
    own, programs = like.context, like.context.programs
    context = assemble(plan, dataset, answers, programs, mesh, like=own)
  else:
    context = make_context(plan, dataset, answers, mesh)
  hosts.assert_equal(plan.recipe.view.kind, context.origin["images"])
  hosts.assert_equal("answers of the teacher", context.origin["answers"])
  hosts.assert_equal("documents", context.origin.get("documents", ""))
  # Only after all checks, so a mistake can be mended in the same workdir.
  if hosts.first():
    files.write(workdir / "config.json", logger.json_bytes(plan.config))
  console.say(logger.header(summary.header(plan, answers, context)))
  return Run(plan, workdir, dataset, answers, context, began)


def make_context(
  plan: Plan, dataset: Dataset, answers: Collected, mesh: Mesh
) -> RunContext:
  """Puts a run on devices, with programs of its own.

  Args:
    plan: of the run.
    dataset: its images and labels.
    answers: the teacher's.
    mesh: devices, with axes `students` and `data`.
  """
  step = make_own_step(plan, mesh, answers.live)
  programs = make_programs(plan, mesh, answers.live, step)
  return assemble(plan, dataset, answers, programs, mesh)


def leave_off(run: Run, ended: Standing, stop: Stop) -> None:
  """Stops after the last step, if any process was told to."""
  if stop.agreed():
    save(run, ended)
    stop.end()


def ask_teacher(
  plan: Plan, dataset: Dataset, mesh: Mesh, workdir: epath.Path
) -> Collected:
  """Trains the teacher if the run has to, and asks it, once.

  Args:
    plan: whose `asking` and `rows` describe the questions.
    dataset: images that the teacher is asked about.
    mesh: devices over which a local teacher's batches are sharded.
    workdir: folder of the run, for a teacher and a table of its own.

  Raises:
    UserError: the teacher cannot be trained or asked.
  """
  asking = plan.asking
  if plan.teacher_training is not None:
    path = epath.Path(asking.path or workdir / "teacher")
    name, config = plan.teacher_training
    try:
      if check_workdir(path, config, "teacher.path"):
        console.say(f"the teacher, {name}, was trained in {path}")
      else:
        console.say(f"the teacher, {name}, is trained in {path}")
        run(config, path, flag_name="teacher.path", wait=True)
        console.say()
    except UserError as error:
      raise UserError(f"teacher {name}: {error}") from error
    asking = asking._replace(source="checkpoint", path=str(path))
  return hosts.in_turn(
    workdir,
    lambda: collect(asking, dataset, plan.rows.train, plan, mesh, workdir),
  )


def conclude(run: Run, ended: Standing, stop: Stop) -> dict[str, Any]:
  """Tests and exports the best student.

  Args:
    run: that was trained.
    ended: where it stands after its last step.
    stop: ends it with a checkpoint before the test, or between it and the
      export.

  Returns:
    The contents of summary.json.
  """
  leave_off(run, ended, stop)
  selection.test(run.context, ended.state, ended.best, ended.record)
  leave_off(run, ended, stop)
  results = summary.finish(
    run.plan, run.dataset, run.answers, run.context, ended, run.workdir
  )
  results["total_seconds"] = round(time.monotonic() - run.began, 3)
  results = sealed.seal(logger.to_json(results))
  if hosts.first():
    path = run.workdir / "curves.png"
    logger.curves(path, run.workdir / "metrics.jsonl")
    files.write(run.workdir / "summary.json", logger.json_bytes(results))
  console.say(logger.header(outcome.result(results)))
  console.say(f"everything is in {run.workdir}")
  hosts.barrier()  # wait for all: JAX treats an early exit as a failure
  return results
