"""The story of a run: ask once, compare, update, validate, report."""

import json
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax import answers as teacher_answers
from ckd_jax import (
  augment,
  budget,
  checkpoint,
  cost,
  data,
  durable,
  evaluate,
  export,
  logger,
  methods,
  models,
  optimizer,
  selection,
  teacher,
)
from ckd_jax import config as configuration
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Task
from ckd_jax.step import (
  Examples,
  State,
  init_state,
  make_step,
  make_update,
)


def run(config, workdir) -> dict:
  """Distils a student as `config` says; returns what summary.json holds.

  The same call resumes an unfinished run from its newest checkpoint and ends
  with the same student, bit for bit; for a finished one it returns the result.

  Raises:
    UserError: anything that the user can mend.
  """
  workdir = epath.Path(workdir)
  finished = open_workdir(config, workdir)
  if finished is not None:
    print(f"{workdir} is finished")
    print(logger.header(result_lines(finished)))
    return finished
  started = time.monotonic()
  dataset = data.load(
    config.dataset.name,
    path=config.dataset.path,
    image_size=config.dataset.image_size,
  )
  check_images(config, dataset)
  chosen = budget.select(
    len(dataset.train.labels),
    budget=config.budget,
    val_fraction=config.val_fraction,
    seed=config.budget_seed,
  )
  method = methods.make(config.method, **config.hyper)
  mesh = make_mesh(config.batch_size)
  if config.teacher.source == "train" and (method.needs or config.teacher.live):
    config = train_teacher(config, workdir, len(dataset.train.labels))
  answers = teacher_answers.collect(
    config, dataset, chosen.train, method.needs, mesh, workdir
  )
  fit = set_up(config, dataset, chosen, method, answers, mesh)
  print(
    logger.header(header_lines(config, dataset, chosen, answers, fit)),
    flush=True,
  )
  state, best, record = loop(config, fit, workdir)
  summary = finish(config, dataset, answers, fit, state, best, record, workdir)
  summary["total_seconds"] = round(time.monotonic() - started, 3)
  durable.write(workdir / "summary.json", json_bytes(summary))
  logger.curves(workdir / "curves.png", workdir / "metrics.jsonl")
  print(logger.header(result_lines(summary)))
  return summary


def open_workdir(config, workdir) -> dict | None:
  """Claims the directory for this config; the summary if the run is finished.

  Raises:
    UserError: it holds a run of another config.
  """
  path = workdir / "config.json"
  wanted = configuration.to_json(config)
  if path.exists():
    try:
      changes = configuration.differences(json.loads(path.read_text()), wanted)
    except json.JSONDecodeError as error:
      raise UserError(f"{path} is damaged: choose another --workdir") from error
    if changes:
      raise UserError(
        f"{workdir} holds a run of another config ({'; '.join(changes)}): "
        "choose another --workdir or the old values"
      )
  else:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      durable.write(path, json_bytes(wanted))
    except OSError as error:
      raise UserError(f"cannot write to {workdir}: {error.strerror}") from error
  summary = workdir / "summary.json"
  return json.loads(summary.read_text()) if summary.exists() else None


def json_bytes(value) -> bytes:
  return (json.dumps(logger.to_json(value), indent=2) + "\n").encode()


def check_images(config, dataset) -> None:
  channels = dataset.train.images.shape[-1]
  for key in ("mean", "std"):
    if len(config.dataset[key]) != channels:
      raise UserError(
        f"dataset.{key} has {len(config.dataset[key])} numbers, the images of "
        f"{dataset.name} have {channels} channels"
      )


def make_mesh(batch_size: int):
  """All devices, or as many as divide the batch, on one axis `data`."""
  devices = jax.devices()
  count = math.gcd(batch_size, len(devices))
  for candidate in range(len(devices), 0, -1):
    if batch_size % candidate == 0:
      count = candidate
      break
  if count < len(devices) and jax.process_count() > 1:
    raise UserError(
      f"batch_size {batch_size} is not a multiple of {len(devices)} devices"
    )
  # Explicit axes, the default, break Linen convolutions.
  return jax.make_mesh(
    (count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count]
  )


def train_teacher(config, workdir, num_examples: int):
  """Trains `teacher.name` on all training labels; it becomes a checkpoint."""
  path = epath.Path(config.teacher.path or workdir / "teacher")
  recipe = config.copy_and_resolve_references()
  with recipe.unlocked():
    recipe.method = "supervised"
    recipe.hyper = configuration.hyper("supervised")
    recipe.student = config.teacher.name
    recipe.seed = recipe.budget_seed = 0  # every seed shares one teacher
    recipe.budget = num_examples
    recipe.val_fraction = 0.0
    recipe.dataset.mean = config.teacher.mean
    recipe.dataset.std = config.teacher.std
    recipe.batch_size = config.teacher.batch_size
    recipe.steps = recipe.eval_every = config.teacher.steps
    recipe.optimizer.learning_rate = config.teacher.learning_rate
    recipe.schedule = config.teacher.schedule
    recipe.teacher.source = "none"
    recipe.teacher.path = recipe.table.path = recipe.table.test_path = None
    recipe.label = "teacher"
  print(f"training the teacher {config.teacher.name} in {path}")
  run(recipe, path)
  print()
  config = config.copy_and_resolve_references()
  config.teacher.source = "checkpoint"
  config.teacher.path = str(path)
  return config


class Fit(NamedTuple):
  """Everything that the loop needs and that does not change."""

  step: object  # jitted (state, examples, key) -> (state, metrics)
  examples: Examples
  key: jax.Array
  state: State  # before the first step
  predict: object
  images: dict  # "train", "validation", "test": evaluate.Images
  labels: dict  # the same, int32[n]
  target: np.ndarray | None  # [classes], the mean that a fitted offset meets
  primary: str  # "none" or "fit": how the reported student is judged
  model: methods.Model
  images_per_step: int
  num_train: int
  num_classes: int
  mesh: object
  one_at_a_time: bool
  # CPU devices share one thread pool: with several steps in flight, all of its
  # threads can end up waiting in all-reduces of different steps.


def set_up(config, dataset, chosen, method, answers, mesh) -> Fit:
  """Builds the step and puts the budgeted images and answers on the devices."""
  num_train = len(chosen.train)
  labels = dataset.train.labels[chosen.train]
  images = dataset.train.images[chosen.train]
  view = config.augment
  if config.student_view == "table":
    view = "none"
    if config.teacher.view == "augmented":
      images = teacher.augmented(
        images,
        dataset.train.ids[chosen.train],
        seed=config.budget_seed,
        pad=config.augment_padding,
      )
  task = Task(
    num_examples=num_train,
    num_classes=len(dataset.class_names),
    batch_size=config.batch_size,
    steps_per_epoch=math.ceil(num_train / config.batch_size),
    labels=labels,
  )
  dtype = jnp.dtype(config.dtype)
  model = models.load(config.student, task.num_classes, dtype=dtype)
  teachers = () if answers.outputs is None else (answers.outputs,)
  mean, std = tuple(config.dataset.mean), tuple(config.dataset.std)
  transform = optimizer.sgd(
    config.optimizer.momentum, config.optimizer.weight_decay
  )
  rate = optimizer.schedule(
    config.schedule,
    config.optimizer.learning_rate,
    config.steps,
    config.schedule_hyper,
  )
  update = make_update(
    method, model, transform, rate, live=answers.live, mean=mean, std=std
  )
  over_data = NamedSharding(mesh, PartitionSpec("data"))
  step = make_step(
    method,
    task,
    update,
    augment.make(view, config.augment_padding),
    mean=mean,
    std=std,
    shard=lambda batch: jax.lax.with_sharding_constraint(batch, over_data),
  )
  everywhere = NamedSharding(mesh, PartitionSpec())
  examples = jax.device_put(Examples(images, labels, teachers), everywhere)
  init_key, key = jax.random.split(jax.random.key(config.seed))
  state = init_state(
    init_key, method, task, model, transform, examples, live=answers.live
  )
  try:
    index = method.sample(key, 0, task, state.method)
  except ValueError as error:
    raise UserError(str(error)) from error
  check_finite(config, method, state, model, examples, index)
  target = method.offset_target(
    Batch(index=None, images=None, labels=labels, teachers=teachers)
  )
  places = {
    "train": (dataset.train.images[chosen.train], labels),
    "validation": (
      dataset.train.images[chosen.validation],
      dataset.train.labels[chosen.validation],
    ),
    "test": (dataset.test.images, dataset.test.labels),
  }
  return Fit(
    step=jax.jit(step, donate_argnums=0, out_shardings=everywhere),
    examples=examples,
    key=key,
    state=jax.device_put(state, everywhere),
    predict=evaluate.make_predict(model, mean=mean, std=std),
    images={
      name: evaluate.place(images, mesh)
      for name, (images, _) in places.items()
      if len(images)
    },
    labels={name: labels for name, (_, labels) in places.items()},
    target=None if target is None else np.asarray(target).mean(0),
    primary=config.hyper.get("offset", "none"),
    model=model,
    images_per_step=index.size,
    num_train=num_train,
    num_classes=task.num_classes,
    mesh=mesh,
    one_at_a_time=jax.default_backend() == "cpu" and mesh.size > 1,
  )


def check_finite(config, method, state, model, examples, index) -> None:
  """A loss that cannot take a class ruled out (-inf) says so before it runs."""
  if not examples.teachers:
    return
  logits = np.asarray(examples.teachers[0].logits)
  ruled_out = np.flatnonzero(~np.isfinite(logits).all(-1))
  if not len(ruled_out):
    return
  index = np.resize(ruled_out, index.shape)
  teachers = jax.tree.map(lambda x: x[index], examples.teachers)
  images = jnp.zeros((index.size, *examples.images.shape[1:]))
  student, _ = model.apply(
    state.params["student"], state.model, images, train=False
  )
  student = jax.tree.map(
    lambda x: x.reshape(*index.shape, *x.shape[1:]), student
  )
  batch = Batch(
    index=index,
    images=images.reshape(*index.shape, *images.shape[1:]),
    labels=examples.labels[index],
    teachers=teachers,
  )
  value, _ = method.loss(
    state.params["method"], state.method, student, batch, jax.random.key(0), 0
  )
  if not np.isfinite(value):
    raise UserError(
      f"{len(ruled_out)} answers rule classes out (-inf), which "
      f"{config.method!r} cannot match: use kd, whose loss takes probabilities"
    )


def loop(config, fit: Fit, workdir) -> tuple[State, dict, dict]:
  """Steps, evaluations and checkpoints; resumes where the newest one stands.

  Returns:
    The last state, the best weights, and the record of `selection`.
  """
  modes = ("none",) if fit.target is None else ("none", "fit")
  record = selection.start(modes)
  state = fit.state
  best = {mode: snapshot(fit, state) for mode in modes}
  folder = workdir / "checkpoints"
  first = 0
  restored = checkpoint.restore(folder, {"state": state, "best": best})
  if restored is not None:
    first, trees, record = restored
    state, best = trees["state"], trees["best"]
    print(f"resuming at step {first}", flush=True)
  show = Display(config, fit, workdir, first)
  eval_every, steps = config.eval_every, config.steps
  plateau = config.schedule_hyper if config.schedule == "plateau" else None
  if plateau:
    # A simulated epoch: as many steps as one pass over the images takes.
    eval_every = math.ceil(fit.num_train / config.batch_size)
    steps = min(steps, plateau.max_epochs * eval_every)
  step = timed_from = first
  pending = None
  clock = time.perf_counter()
  while step < steps and not (plateau and record["level"] >= plateau.levels):
    state, metrics = fit.step(state, fit.examples, fit.key)
    step += 1
    if fit.one_at_a_time:
      jax.block_until_ready(state.step)
    # The numbers of the step before are read while this one runs.
    if pending is not None:
      show.training(*pending)
    pending = (step, metrics) if step % config.log_every == 0 else None
    if step == first + 1:
      jax.block_until_ready(state.step)
      record["train_seconds"] += time.perf_counter() - clock
      clock, timed_from = time.perf_counter(), step
    judged = step % eval_every == 0 or step == steps
    saved = step % config.checkpoint_every == 0
    if not (judged or saved):
      continue
    jax.block_until_ready(state.step)
    seconds = time.perf_counter() - clock
    record["train_seconds"] += seconds
    record["timed_seconds"] += seconds
    record["timed_steps"] += step - timed_from
    clock = time.perf_counter()
    if pending is not None:
      show.training(*pending)
      pending = None
    if judged:
      show.accuracies(step, judge(fit, record, step, state, best))
      if plateau and selection.plateau(record, plateau.patience):
        level = plateau.factor ** record["level"]
        state = reload(state, best[fit.primary], level)
    if saved:
      checkpoint.save(folder, step, {"state": state, "best": best}, record)
    record["evaluation_seconds"] += time.perf_counter() - clock
    clock, timed_from = time.perf_counter(), step
  record["steps"] = step
  return state, best, record


class Display:
  """Writes metrics.jsonl and moves the progress bar."""

  def __init__(self, config, fit: Fit, workdir, first: int):
    self._log = logger.Logger(workdir / "metrics.jsonl", from_step=first)
    self._bar = logger.Progress(config.steps, fit.images_per_step, first=first)
    self._shown = {}

  def training(self, step: int, metrics) -> None:
    """The numbers of a step that is finished."""
    values = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(values["loss"]):
      raise UserError(
        f"the loss is {values['loss']} at step {step}: lower "
        "optimizer.learning_rate; the checkpoints before it are whole"
      )
    self._log.log(step, **values)
    for name in ("loss", "train_accuracy"):
      self._shown[name] = values[name]
    self._bar.show(step, **self._shown)

  def accuracies(self, step: int, values: dict) -> None:
    """What an evaluation found."""
    self._log.log(step, **values)
    self._shown |= values
    self._bar.show(step, **self._shown)


def snapshot(fit: Fit, state: State, offset=0.0) -> dict:
  """A copy of the weights (the step donates its own), and their offset."""
  tree = {
    "params": state.params["student"],
    "model": state.model,
    "offset": np.full(fit.num_classes, offset, np.float32),
  }
  everywhere = NamedSharding(fit.mesh, PartitionSpec())
  return jax.device_put(jax.tree.map(jnp.copy, tree), everywhere)


def reload(state: State, best: dict, level: float) -> State:
  """The best weights at a lower rate; the momentum stays, as published."""
  copy = jax.tree.map(jnp.copy, {"p": best["params"], "m": best["model"]})
  return state._replace(
    params={**state.params, "student": copy["p"]},
    model=copy["m"],
    level=jax.device_put(jnp.float32(level), state.level.sharding),
  )


def judge(fit: Fit, record, step, state, best) -> dict[str, float]:
  """Validates, and keeps in `best` a copy of what is now at its best.

  The test set is not looked at before the end of the run.

  Returns:
    The accuracies found, by name.
  """
  params, model_state = state.params["student"], state.model
  offsets = fitted_offsets(fit, params, model_state)
  val = dict.fromkeys(offsets)
  if "validation" in fit.images:
    logits = fit.predict(params, model_state, fit.images["validation"])
    val = {
      mode: accuracy(logits + offset, fit.labels["validation"])
      for mode, offset in offsets.items()
    }
  for mode in selection.judge(record, step, val, fit.primary):
    best[mode] = snapshot(fit, state, offsets[mode])
  return {
    shown_name("val_accuracy", mode, fit): value
    for mode, value in val.items()
    if value is not None
  }


def fitted_offsets(fit: Fit, params, model_state) -> dict[str, np.ndarray]:
  """What is added to the logits in each mode: nothing, or the fitted offset."""
  offsets = {"none": np.zeros(fit.num_classes, np.float32)}
  if fit.target is not None:
    logits = fit.predict(params, model_state, fit.images["train"])
    offsets["fit"] = fit.target - logits.mean(0)
  return offsets


def test_accuracies(fit: Fit, state: State, best: dict, record: dict) -> None:
  """Looks at the test set, once the run is over: the best and the last."""
  params, model_state = state.params["student"], state.model
  last = fit.predict(params, model_state, fit.images["test"])
  for mode, offset in fitted_offsets(fit, params, model_state).items():
    kept = best[mode]
    logits = fit.predict(kept["params"], kept["model"], fit.images["test"])
    record["modes"][mode].update(
      test=accuracy(logits + np.asarray(kept["offset"]), fit.labels["test"]),
      last_test=accuracy(last + offset, fit.labels["test"]),
    )


def shown_name(name: str, mode: str, fit: Fit) -> str:
  return name if mode == fit.primary else f"{name}_offset_{mode}"


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
  return evaluate.percent(logits.argmax(-1) == labels)


def finish(config, dataset, answers, fit, state, best, record, workdir) -> dict:
  """Exports the best student and says everything that the run showed."""
  test_accuracies(fit, state, best, record)
  best = best[fit.primary]
  params, model_state = jax.device_get((best["params"], best["model"]))
  if fit.primary == "fit":
    probe = np.asarray(fit.images["train"].batches[0][:4], np.float32) / 255
    leaf = export.classifier_bias(fit.model.apply, params, model_state, probe)
    params = export.fold_offset(params, np.asarray(best["offset"]), leaf)
  test = evaluate.measures(
    fit.predict(params, model_state, fit.images["test"]),
    fit.labels["test"],
    answers.test_outputs,
  )
  on_table = {}
  if answers.outputs is not None:
    on_table = evaluate.measures(
      fit.predict(params, model_state, fit.images["train"]),
      fit.labels["train"],
      answers.outputs,
    )
  chosen = record["modes"][fit.primary]
  metadata = {
    "model": config.student,
    "classes": str(len(dataset.class_names)),
    "class_names": json.dumps(list(dataset.class_names)),
    "mean": json.dumps(list(config.dataset.mean)),
    "std": json.dumps(list(config.dataset.std)),
    "image_shape": json.dumps(list(dataset.test.images.shape[1:])),
  }
  export.save(workdir / "student.safetensors", params, model_state, metadata)
  steps = record["steps"]
  rate = record["timed_steps"] / max(record["timed_seconds"], 1e-9)
  step_ms = 1e3 / rate if rate else None
  live_calls = steps * fit.images_per_step if answers.live is not None else 0
  return {
    "dataset": dataset.name,
    "student": config.student,
    "teacher": answers.teacher,
    "method": config.method,
    "label": config.label,
    "seed": config.seed,
    "budget": config.budget,
    "budget_seed": config.budget_seed,
    "teacher_calls": answers.calls,
    "paid_calls": answers.paid,
    "repeated_calls": answers.repeated,
    "live_calls": live_calls,
    "evaluation_calls": answers.evaluation_calls,
    "steps": steps,
    "test_accuracy": chosen["test"],
    "val_accuracy": chosen["val"],
    "last_test_accuracy": chosen["last_test"],
    "best_step": chosen["step"],
    "offset": record["modes"] if len(record["modes"]) > 1 else None,
    "test_top5_accuracy": test["top5"],
    "test_calibration_error": test["calibration_error"],
    "test_agreement": test.get("agreement"),
    "train_accuracy": on_table.get("top1"),
    "train_agreement": on_table.get("agreement"),
    "teacher_test_accuracy": teacher_answers.test_accuracy(answers, dataset),
    "train_seconds": round(record["train_seconds"], 3),
    "evaluation_seconds": round(record["evaluation_seconds"], 3),
    "step_milliseconds": step_ms and round(step_ms, 3),
    "images_per_second": round(rate * fit.images_per_step, 1),
    "student_parameters": cost.parameters(params),
    "params_sha256": export.params_sha256(params, model_state),
    "table_path": answers.path,
    "table_digest": answers.digest,
    "table_rows": answers.calls,
    "devices": device_line(fit.mesh),
    "dtype": config.dtype,
    "jax": jax.__version__,
  }


def device_line(mesh) -> str:
  device = mesh.devices.flat[0]
  return f"{mesh.size} x {device.device_kind} ({device.platform})"


def header_lines(config, dataset, chosen, answers, fit) -> list[tuple]:
  shape = dataset.train.images.shape[1:]
  student = cost.parameters(fit.state.params["student"])
  flops = cost.flops(
    fit.model, fit.state.params["student"], fit.state.model, shape
  )
  lines = [
    ("dataset", f"{dataset.name}: {len(dataset.train.labels)} train"),
    (
      "student",
      f"{config.student}: {student:,} parameters, {flops / 1e6:.2f} "
      "MFLOPs an image",
    ),
    ("teacher", answers.teacher),
  ]
  return [
    *lines,
    ("method", config.method),
    (
      "budget",
      f"{len(chosen.train)} train + {len(chosen.validation)} validation images",
    ),
    (
      "calls",
      f"{answers.calls} of {len(chosen.train)} used, {answers.paid} "
      f"paid now, {answers.repeated} repeated",
    ),
    ("devices", device_line(fit.mesh)),
    ("dtype", config.dtype),
    ("seed", config.seed),
  ]


def result_lines(summary: dict) -> list[tuple]:
  lines = [
    (key, summary[key])
    for key in (
      "test_accuracy",
      "val_accuracy",
      "last_test_accuracy",
      "teacher_test_accuracy",
      "teacher_calls",
      "train_seconds",
      "images_per_second",
      "params_sha256",
    )
  ]
  return lines
