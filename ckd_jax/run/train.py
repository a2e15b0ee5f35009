"""The story of a run: ask once, compare, update, validate, report."""

import contextlib
import functools
import json
import math
import time
from typing import NamedTuple

import ml_collections
from etils import epath

from ckd_jax import config as configuration
from ckd_jax import data, methods
from ckd_jax.data import budget
from ckd_jax.errors import UserError
from ckd_jax.run import answers as teacher_answers
from ckd_jax.run import checkpoint, logger, selection, stages, summary
from ckd_jax.run.assemble import Fit, assemble
from ckd_jax.run.loop import Launcher, Rhythm, Watch
from ckd_jax.run.plan import plan
from ckd_jax.step import State
from ckd_jax.step.optimizer import SCHEDULE_NUMBERS
from ckd_jax.step.sharding import make_mesh
from ckd_jax.system import compile_cache, files, hosts


def run(config, workdir, *, place: str = "--workdir") -> dict:
  """Distils a student as `config` says; returns what summary.json holds.

  The same call resumes an unfinished run from its newest checkpoint and ends
  with the same student, bit for bit; for a finished one it returns the result.

  Args:
    config: of the run, complete and checked.
    workdir: where everything that it makes is kept.
    place: what the user calls that directory, for messages.

  Raises:
    UserError: anything that the user can mend.
  """
  workdir = epath.Path(workdir)
  look_into(workdir, config, place)  # a mistake is told before any waiting
  hosts.same("values in its config", configuration.digest(config))
  held = files.lock(workdir) if hosts.first() else contextlib.nullcontext()
  with held:
    hosts.wait()
    return _run(config, workdir, place)


def _run(config, workdir, place: str) -> dict:
  finished = look_into(workdir, config, place)
  if finished is not None:
    print(f"{workdir} is finished")
    print(logger.header(summary.result(finished)))
    return finished
  run = prepare(config, workdir)
  return conclude(run, *loop(config, run.fit, workdir))


class Run(NamedTuple):
  """A run that is ready for its first step."""

  config: ml_collections.ConfigDict
  workdir: epath.Path
  dataset: data.Dataset
  answers: teacher_answers.Answers
  fit: Fit
  began: float  # time.monotonic()


def prepare(config, workdir, *, mesh=None, like: Run | None = None) -> Run:
  """Reads the data, asks the teacher, and says what will be done.

  Args:
    config: of the run.
    workdir: of the run.
    mesh: the devices; None is all of them, for one student.
    like: a run that differs in seed, budget or rate alone: its programs serve.

  Raises:
    UserError: as `run`.
  """
  began = time.monotonic()
  dataset = like.dataset if like else load(config)
  chosen = budget.select(
    len(dataset.train.labels),
    budget=config.budget,
    val_fraction=config.val_fraction,
    seed=config.budget_seed,
  )
  method = methods.make(config.method, **config.hyper)
  settled = plan(config, dataset, chosen, method)
  mesh = mesh or make_mesh(config.batch_size)
  informed = config
  if config.teacher.source == "train" and method.needs:
    informed = train_teacher(config, workdir, len(dataset.train.labels))
  answers = hosts.in_turn(
    workdir,
    lambda: teacher_answers.collect(
      informed, dataset, chosen.train, settled, mesh, workdir
    ),
  )
  fit = assemble(
    config,
    dataset,
    chosen,
    settled,
    answers,
    mesh,
    like=like and like.fit,
  )
  hosts.same("images", fit.origin["images"])
  hosts.same("answers of the teacher", fit.origin["answers"])
  # Only now: a mistake that was found so far can be mended in the same place.
  if hosts.first():
    kept = configuration.to_json(config)
    files.write(workdir / "config.json", as_json(kept))
  header = summary.header(config, dataset, answers, fit)
  print(logger.header(header), flush=True)
  return Run(config, workdir, dataset, answers, fit, began)


def load(config) -> data.Dataset:
  """The data set that a config names."""
  return data.load(
    config.dataset.name,
    path=config.dataset.path,
    image_size=config.dataset.image_size,
    lazy=True if config.dataset.placement == "stream" else None,
  )


def conclude(run: Run, state: State, best: dict, record: dict) -> dict:
  """Tests and exports the best student; returns what summary.json holds."""
  workdir = run.workdir
  results = summary.finish(
    run.config,
    run.dataset,
    run.answers,
    run.fit,
    state,
    best,
    record,
    workdir,
  )
  results["total_seconds"] = round(time.monotonic() - run.began, 3)
  if hosts.first():
    logger.curves(workdir / "curves.png", workdir / "metrics.jsonl")
    files.write(workdir / "summary.json", as_json(results))
  print(logger.header(summary.result(results)))
  hosts.wait()  # who left now would be missed after JAX's own timeout
  return results


def look_into(workdir, config, place: str) -> dict | None:
  """The summary of a finished run, or None if there is something to do.

  Raises:
    UserError: the directory holds a run of another config.
  """
  path = workdir / "config.json"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    old, finished = _object(path), _object(workdir / "summary.json")
    if finished is not None:
      summary.result(finished)  # whatever it shows must be there
  except OSError as error:
    raise UserError(
      f"cannot use {workdir}: {error.strerror}: choose another {place}"
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f"a .json file in {workdir} is damaged: choose another {place}"
    ) from error
  new = configuration.to_json(config)
  changes = configuration.differences(old, new) if old else []
  if changes:
    raise UserError(
      f"{workdir} holds a run of another config ({'; '.join(changes)}): "
      f"choose another {place} or the old values"
    )
  return finished


def _object(path) -> dict | None:
  """What a .json file holds, or None where there is none."""
  if not path.exists():
    return None
  value = json.loads(path.read_text())
  if not isinstance(value, dict):
    raise ValueError(f"{path} holds a {type(value).__name__}")
  return value


def as_json(value) -> bytes:
  return (json.dumps(logger.to_json(value), indent=2) + "\n").encode()


def train_teacher(config, workdir, num_examples: int):
  """Trains `teacher.name` on all training labels, once.

  Returns:
    The config as it would stand if that teacher had been there before.
  """
  path = epath.Path(config.teacher.path or workdir / "teacher")
  recipe = config.copy_and_resolve_references()
  recipe.unlock()
  recipe.method = "supervised"
  recipe.hyper = configuration.hyper("supervised")
  recipe.label = "teacher"
  recipe.student = config.teacher.name
  recipe.seed = recipe.budget_seed = 0  # every seed shares one teacher
  recipe.budget = num_examples
  recipe.val_fraction = 0.0
  recipe.student_view = "fresh"
  recipe.dataset.mean = config.teacher.mean
  recipe.dataset.std = config.teacher.std
  for key in ("batch_size", "schedule", "steps"):
    recipe[key] = config.teacher[key]
  recipe.eval_every = config.teacher.steps
  recipe.optimizer.learning_rate = config.teacher.learning_rate
  numbers = config.schedule_hyper.to_dict()
  recipe.schedule_hyper = ml_collections.ConfigDict(
    {key: numbers[key] for key in SCHEDULE_NUMBERS[config.teacher.schedule]}
  )
  recipe.dtype = "float32"
  # What has no influence on it must not tell one teacher from another.
  recipe.log_every, recipe.checkpoint_every = 50, 1000
  recipe.teacher = ml_collections.ConfigDict({"source": "none"})
  recipe.table = ml_collections.ConfigDict()
  print(f"the teacher, {config.teacher.name}, is trained in {path}")
  try:
    run(recipe, path, place="teacher.path")
  except UserError as error:
    raise UserError(f"teacher {config.teacher.name}: {error}") from error
  print()
  informed = config.copy_and_resolve_references()
  informed.teacher.source = "checkpoint"
  informed.teacher.path = str(path)
  return informed


class Course(NamedTuple):
  """Where a run stands."""

  step: int
  state: State
  best: dict  # weights by mode
  record: dict  # of `selection`


def course(config, fit: Fit, workdir) -> Course:
  """The beginning, or the newest checkpoint, after the method's stages."""
  record = selection.start(selection.modes(fit)) | {"origin": fit.origin}
  state = stages.run(config, fit, workdir)
  best = {mode: selection.snapshot(fit, state) for mode in record["modes"]}
  like = {"state": state, "best": best}
  restored = checkpoint.restore(workdir / "checkpoints", like)
  if restored is None:
    return Course(0, state, best, record)
  step, trees, kept = restored
  stages.check_origin(fit, kept, workdir)
  print(f"resuming at step {step}", flush=True)
  return Course(step, trees["state"], trees["best"], record | kept)


def display(config, fit: Fit, workdir, first: int, *, bar: bool = True):
  """Shows the numbers of a run from a step on; one process of many speaks."""
  return logger.Display(
    workdir / "metrics.jsonl",
    config.steps,
    fit.images_per_step,
    first=first,
    log=hosts.first(),
    bar=bar and hosts.first(),
  )


def loop(config, fit: Fit, workdir) -> tuple[State, dict, dict]:
  """Steps, validations and checkpoints; resumes where the newest one stands.

  Returns:
    The last state, the best weights by mode, and the record of `selection`.
  """
  step, state, best, record = course(config, fit, workdir)
  rhythm, plateau = rhythm_of(config, fit), plateau_of(config)
  show, watch = display(config, fit, workdir, step), Watch(record)
  launcher = Launcher(fit, fit.launch, rhythm, show.training, watch)
  while step < rhythm.steps and not is_over(record, plateau):
    stop = rhythm.stop(step)
    state = launcher.run(state, step, stop)
    step = stop
    if rhythm.judged(step):
      keep = functools.partial(selection.snapshot, fit, state)
      logits = selection.look(fit, state)
      found = selection.validate(fit, logits, step, record, best, keep)
      show.accuracies(step, found)
      if falls(record, plateau):
        level = fit.scale * plateau.factor ** record["level"]
        state = selection.reload(state, best[fit.primary], level)
    if rhythm.saved(step):
      save(workdir, step, state, best, record)
    watch.evaluated()
  record["steps"] = step
  return state, best, record


def save(workdir, step: int, state: State, best: dict, record: dict) -> None:
  """From here the same command resumes."""
  trees = {"state": state, "best": best}
  checkpoint.save(workdir / "checkpoints", step, trees, record)
  compile_cache.share()


def plateau_of(config):
  """The numbers of a plateau schedule, or None for another one."""
  return config.schedule_hyper if config.schedule == "plateau" else None


def rhythm_of(config, fit: Fit) -> Rhythm:
  """When the run is judged, saved and logged."""
  judge, steps = config.eval_every, config.steps
  if plateau := plateau_of(config):
    # A simulated epoch: as many steps as one pass over the images takes.
    judge = math.ceil(fit.num_train / config.batch_size)
    steps = min(steps, plateau.max_epochs * judge)
  return Rhythm(steps, judge, config.checkpoint_every, config.log_every)


def is_over(record: dict, plateau) -> bool:
  """Whether the rate fell as often as a plateau allows."""
  return bool(plateau) and record["level"] >= plateau.levels


def falls(record: dict, plateau) -> bool:
  """Whether the run goes on from its best weights at a lower rate."""
  fell = plateau and selection.plateau(record, plateau.patience)
  return bool(fell) and not is_over(record, plateau)
