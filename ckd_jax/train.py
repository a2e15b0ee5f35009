"""The story of a run: ask once, compare, update, validate, report."""

import json
import math
import time

import jax
import ml_collections
from etils import epath

from ckd_jax import answers as teacher_answers
from ckd_jax import (
  budget,
  checkpoint,
  data,
  durable,
  logger,
  methods,
  selection,
  stages,
  summary,
)
from ckd_jax import config as configuration
from ckd_jax.assemble import Fit, assemble, make_mesh, plan
from ckd_jax.errors import UserError
from ckd_jax.step import State


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
  finished = look_into(workdir, config, place)
  if finished is not None:
    print(f"{workdir} is finished")
    print(logger.header(summary.result(finished)))
    return finished
  started = time.monotonic()
  dataset = data.load(
    config.dataset.name,
    path=config.dataset.path,
    image_size=config.dataset.image_size,
  )
  chosen = budget.select(
    len(dataset.train.labels),
    budget=config.budget,
    val_fraction=config.val_fraction,
    seed=config.budget_seed,
  )
  method = methods.make(config.method, **config.hyper)
  settled = plan(config, dataset, chosen, method)
  mesh = make_mesh(config.batch_size)
  informed = config
  if config.teacher.source == "train" and method.needs:
    informed = train_teacher(config, workdir, len(dataset.train.labels))
  answers = teacher_answers.collect(
    informed, dataset, chosen.train, method.needs, mesh, workdir
  )
  fit = assemble(config, dataset, chosen, settled, answers, mesh)
  # Only now: a mistake that was found so far can be mended in the same place.
  durable.write(workdir / "config.json", as_json(configuration.to_json(config)))
  header = summary.header(config, dataset, answers, fit)
  print(logger.header(header), flush=True)
  state, best, record = loop(config, fit, workdir)
  results = summary.finish(
    config, dataset, answers, fit, state, best, record, workdir
  )
  results["total_seconds"] = round(time.monotonic() - started, 3)
  logger.curves(workdir / "curves.png", workdir / "metrics.jsonl")
  durable.write(workdir / "summary.json", as_json(results))
  print(logger.header(summary.result(results)))
  return results


def look_into(workdir, config, place: str) -> dict | None:
  """The summary of a finished run, or None if there is something to do.

  Raises:
    UserError: the directory holds a run of another config.
  """
  path = workdir / "config.json"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    old = json.loads(path.read_text()) if path.exists() else None
    done = workdir / "summary.json"
    finished = json.loads(done.read_text()) if done.exists() else None
  except OSError as error:
    raise UserError(
      f"cannot use {workdir}: {error.strerror}: choose another {place}"
    ) from error
  except json.JSONDecodeError as error:
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
  recipe.dtype = "float32"
  # What has no influence on it must not tell one teacher from another.
  recipe.log_every, recipe.checkpoint_every = 50, 1000
  recipe.teacher = ml_collections.ConfigDict({"source": "none"})
  recipe.table = ml_collections.ConfigDict()
  print(f"the teacher, {config.teacher.name}, is trained in {path}")
  run(recipe, path, place="teacher.path")
  print()
  informed = config.copy_and_resolve_references()
  informed.teacher.source = "checkpoint"
  informed.teacher.path = str(path)
  return informed


def loop(config, fit: Fit, workdir) -> tuple[State, dict, dict]:
  """Steps, validations and checkpoints; resumes where the newest one stands.

  Returns:
    The last state, the best weights by mode, and the record of `selection`.
  """
  record = selection.start(selection.modes(fit))
  state = stages.run(config, fit, workdir)
  best = {mode: selection.snapshot(fit, state) for mode in record["modes"]}
  folder = workdir / "checkpoints"
  first = 0
  restored = checkpoint.restore(folder, {"state": state, "best": best})
  if restored is not None:
    first, trees, kept = restored
    record |= kept
    state, best = trees["state"], trees["best"]
    print(f"resuming at step {first}", flush=True)
  show = logger.Display(
    workdir / "metrics.jsonl", config.steps, fit.images_per_step, first=first
  )
  eval_every, steps = config.eval_every, config.steps
  plateau = config.schedule_hyper if config.schedule == "plateau" else None
  if plateau:
    # A simulated epoch: as many steps as one pass over the images takes.
    eval_every = math.ceil(fit.num_train / config.batch_size)
    steps = min(steps, plateau.max_epochs * eval_every)
  step = timed_from = first
  pending = None
  clock, processor = time.perf_counter(), time.process_time()
  while step < steps and not (plateau and record["level"] >= plateau.levels):
    state, metrics = fit.step(state, fit.examples, fit.key)
    step += 1
    if fit.one_at_a_time:
      jax.block_until_ready(state.step)
    # The numbers of the step before are read while this one runs.
    if pending is not None:
      show.training(*pending)
    judged = step % eval_every == 0 or step == steps
    saved = step % config.checkpoint_every == 0
    # A loss that is not a number must not reach a checkpoint.
    logged = judged or saved or step % config.log_every == 0
    pending = (step, metrics) if logged else None
    if step == first + 1:
      jax.block_until_ready(state.step)
      record["train_seconds"] += time.perf_counter() - clock
      clock, timed_from = time.perf_counter(), step
    if not (judged or saved):
      continue
    jax.block_until_ready(state.step)
    seconds = time.perf_counter() - clock
    record["train_seconds"] += seconds
    record["timed_seconds"] += seconds
    record["timed_steps"] += step - timed_from
    clock = time.perf_counter()
    show.training(*pending)
    pending = None
    if judged:
      show.accuracies(step, selection.validate(fit, state, step, record, best))
      falls = plateau and selection.plateau(record, plateau.patience)
      if falls and record["level"] < plateau.levels:
        level = plateau.factor ** record["level"]
        state = selection.reload(state, best[fit.primary], level)
    if saved:
      checkpoint.save(folder, step, {"state": state, "best": best}, record)
    record["evaluation_seconds"] += time.perf_counter() - clock
    record["processor_seconds"] += time.process_time() - processor
    clock, processor = time.perf_counter(), time.process_time()
    timed_from = step
  record["steps"] = step
  return state, best, record
