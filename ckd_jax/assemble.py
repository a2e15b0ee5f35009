"""Everything that the loop needs: the jitted step, and its table on devices."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ckd_jax import (
  augment,
  evaluate,
  export,
  models,
  optimizer,
  stages,
  teacher,
)
from ckd_jax.answers import Answers
from ckd_jax.budget import Selection
from ckd_jax.data import Dataset
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Method, Model, Outputs, Stage, Task
from ckd_jax.stages import Phase
from ckd_jax.step import (
  Examples,
  State,
  gather,
  init_state,
  make_gradients,
  make_step,
  make_update,
)


class Fit(NamedTuple):
  """What the loop works with and does not change."""

  step: Callable  # jitted (state, examples, key) -> (state, metrics)
  stages: tuple[Phase, ...]  # what comes before it
  transform: optax.GradientTransformation
  examples: Examples
  key: jax.Array
  state: State  # before the first step
  model: Model
  predict: Callable  # (params, state, evaluate.Images) -> logits on the host
  images: dict[str, evaluate.Images]  # train, validation (if any), test
  labels: dict[str, np.ndarray]  # int32[n], the same
  target: np.ndarray | None  # [classes]: the mean that a fitted offset meets
  primary: str  # "none" or "fit": how the reported student is judged
  bias: tuple[str, ...] | None  # the leaf that takes up a fitted offset
  num_train: int
  num_classes: int
  images_per_step: int
  mesh: Mesh
  everywhere: NamedSharding  # a copy on every device

  @property
  def one_at_a_time(self) -> bool:
    """Whether a step must end before the next one is launched.

    CPU devices share one thread pool: with several steps in flight, all of its
    threads can end up waiting in all-reduces of different steps.
    """
    return self.mesh.size > 1 and self.mesh.devices.flat[0].platform == "cpu"


def make_mesh(batch_size: int) -> Mesh:
  """All devices, or as many as divide the batch, on one axis `data`.

  Raises:
    UserError: on several hosts every device must have its share.
  """
  devices = jax.devices()
  count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
  if count < len(devices) and jax.process_count() > 1:
    raise UserError(
      f"batch_size {batch_size} is not a multiple of the {len(devices)} devices"
    )
  # Explicit axes, the default, break Linen convolutions.
  return jax.make_mesh(
    (count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count]
  )


class Plan(NamedTuple):
  """What is settled before the teacher is asked anything."""

  method: Method
  model: Model
  task: Task
  images: np.ndarray  # uint8[rows, h, w, c], as they are
  augment: Callable  # (key, images) -> images
  transform: optax.GradientTransformation
  schedule: Callable
  mean: tuple[float, ...]
  std: tuple[float, ...]
  bias: tuple[str, ...] | None  # the leaf that will take up a fitted offset


def plan(config, dataset: Dataset, chosen: Selection, method: Method) -> Plan:
  """Settles the run, and rehearses a step: no call is paid for a mistake.

  Raises:
    UserError: the student, the method and the batch do not fit together.
  """
  check_images(config, dataset)
  labels = dataset.train.labels[chosen.train]
  task = Task(
    num_examples=len(labels),
    num_classes=len(dataset.class_names),
    batch_size=config.batch_size,
    steps_per_epoch=math.ceil(len(labels) / config.batch_size),
    labels=labels,
  )
  fresh = config.student_view == "fresh"
  settled = Plan(
    method=method,
    model=models.load(
      config.student, task.num_classes, dtype=jnp.dtype(config.dtype)
    ),
    task=task,
    images=dataset.train.images[chosen.train],
    augment=augment.make(
      config.augment if fresh else "none", config.augment_padding
    ),
    transform=optimizer.sgd(
      config.optimizer.momentum, config.optimizer.weight_decay
    ),
    schedule=optimizer.schedule(
      config.schedule,
      config.optimizer.learning_rate,
      config.steps,
      config.schedule_hyper,
    ),
    mean=tuple(config.dataset.mean),
    std=tuple(config.dataset.std),
    bias=None,
  )
  try:
    rehearse(settled)
    if config.hyper.get("offset") == "fit":
      settled = settled._replace(bias=find_bias(settled))
  except UserError:
    raise
  except Exception as error:  # a student of one's own may raise anything
    reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise UserError(
      f"student {config.student} with method {config.method} cannot make a "
      f"step: {reason}"
    ) from error
  return settled


def check_images(config, dataset: Dataset) -> None:
  """Refuses a normalisation that does not fit the images' channels."""
  channels = dataset.train.images.shape[-1]
  owners = ["dataset"]
  if config.teacher.source in ("torch", "train"):
    owners.append("teacher")
  for owner in owners:
    for key in ("mean", "std"):
      found = len(config[owner][key])
      if found != channels:
        raise UserError(
          f"{owner}.{key} has {found} numbers, the images of {dataset.name} "
          f"have {channels} channels"
        )


def rehearse(settled: Plan) -> None:
  """Traces the first step, with shapes in place of numbers.

  What a teacher says beyond its logits has shapes that only it knows: such
  methods are rehearsed when it has spoken.
  """
  needs = settled.method.needs
  if needs - {"logits"}:
    return
  rows, classes = settled.task.num_examples, settled.task.num_classes
  logits = jax.ShapeDtypeStruct((rows, classes), jnp.float16)
  examples = Examples(
    jax.ShapeDtypeStruct(settled.images.shape, jnp.uint8),
    jax.ShapeDtypeStruct((rows,), jnp.int32),
    (Outputs(logits),) if needs else (),
  )

  def first_step(key, examples):
    state = begin(settled, key, examples)
    for stage in settled.method.stages:
      state, _ = step_of(staged(settled, stage))(state, examples, key)
      state = stages.finish(stage, state, settled.transform)
    return step_of(settled)(state, examples, key)

  jax.eval_shape(first_step, jax.random.key(0), examples)


def find_bias(settled: Plan) -> tuple[str, ...]:
  """The classifier's bias, into which an offset can be folded at the end."""
  images = jnp.zeros((4, *settled.images.shape[1:]), jnp.float32)
  params, state = jax.jit(settled.model.init)(jax.random.key(0), images)
  probe = augment.normalise(settled.images[:4], settled.mean, settled.std)
  return export.classifier_bias(settled.model.apply, params, state, probe)


def begin(settled: Plan, key, examples: Examples, live=None) -> State:
  """The state before the first step."""
  return init_state(
    key,
    settled.method,
    settled.task,
    settled.model,
    settled.transform,
    examples,
    live=live,
  )


def _anywhere(batch: Batch) -> Batch:
  return batch


def step_of(settled: Plan, *, live=None, shard=_anywhere, trains=None):
  """The step of a run, not yet jitted; `trains` as in `make_update`."""
  update = make_update(
    settled.method,
    settled.model,
    settled.transform,
    settled.schedule,
    live=live,
    mean=settled.mean,
    std=settled.std,
    trains=trains,
  )
  return _fed(settled, update, shard)


def gradients_of(settled: Plan, *, live=None, shard=_anywhere):
  """(state, examples, key) -> what `make_gradients` gives for a batch."""
  gradients = make_gradients(
    settled.method,
    settled.model,
    live=live,
    mean=settled.mean,
    std=settled.std,
  )
  return _fed(settled, gradients, shard)


def _fed(settled: Plan, work: Callable, shard: Callable) -> Callable:
  return make_step(
    settled.method,
    settled.task,
    work,
    settled.augment,
    mean=settled.mean,
    std=settled.std,
    shard=shard,
  )


def staged(settled: Plan, stage: Stage) -> Plan:
  """The run as it is during a stage."""
  return settled._replace(
    method=settled.method._replace(loss=stage.loss),
    schedule=lambda step: jnp.full((), stage.learning_rate, jnp.float32),
  )


def phases(settled: Plan, state: State, compiled, gradients):
  """The stages, compiled, and the state that the main part begins with.

  Args:
    settled: the run.
    state: before everything.
    compiled: (plan, trains) -> jitted step.
    gradients: (plan, state) -> gradient of its first batch.
  """
  made = []
  for stage in settled.method.stages:
    part = staged(settled, stage)
    # What the loss does not reach must not be decayed either.
    trains = jax.tree.map(
      lambda leaf: bool(np.any(np.asarray(leaf))), gradients(part, state)
    )
    if not stage.trains_student:
      student = jax.tree.map(lambda moves: False, trains["student"])
      trains = {**trains, "student": student}
    steps = stage.epochs * settled.task.steps_per_epoch
    made.append(Phase(stage, compiled(part, trains), steps, state))
    state = stages.finish(stage, state, settled.transform)
  return tuple(made), state


def assemble(
  config,
  dataset: Dataset,
  chosen: Selection,
  settled: Plan,
  answers: Answers,
  mesh: Mesh,
) -> Fit:
  """Jits the step and puts the budgeted images and answers on the devices.

  Raises:
    UserError: the method cannot work with these answers.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  over_data = NamedSharding(mesh, PartitionSpec("data"))
  method, model, task = settled.method, settled.model, settled.task
  teachers = () if answers.outputs is None else (answers.outputs,)
  ids = dataset.train.ids[chosen.train]
  examples = jax.device_put(
    Examples(
      student_images(config, settled.images, ids, answers),
      task.labels,
      teachers,
    ),
    everywhere,
  )
  init_key, key = jax.random.split(jax.random.key(config.seed))
  where = {
    "live": answers.live,
    "shard": lambda batch: jax.lax.with_sharding_constraint(batch, over_data),
  }

  def compiled(settled, trains=None):
    step = step_of(settled, trains=trains, **where)
    return jax.jit(step, donate_argnums=0, out_shardings=everywhere)

  def gradients(settled, state):
    return jax.jit(gradients_of(settled, **where))(state, examples, key)[0]

  try:
    state = jax.jit(
      lambda key, examples: begin(settled, key, examples, answers.live),
      out_shardings=everywhere,
    )(init_key, examples)
    index = jax.eval_shape(
      lambda key: method.sample(key, 0, task, state.method), key
    )
  except ValueError as error:
    raise UserError(f"method {config.method}: {error}") from error
  seen = jax.eval_shape(
    lambda *x: method.prepare(key, gather(*x)), examples, index
  ).images
  check_finite(config, method, state, model, examples, index.shape)
  before, state = phases(settled, state, compiled, gradients)
  target = None
  if answers.live is None:
    target = method.offset_target(
      Batch(index=None, images=None, labels=task.labels, teachers=teachers)
    )
  places = {
    "train": (settled.images, task.labels),
    "validation": (
      dataset.train.images[chosen.validation],
      dataset.train.labels[chosen.validation],
    ),
    "test": (dataset.test.images, dataset.test.labels),
  }
  return Fit(
    step=compiled(settled),
    stages=before,
    transform=settled.transform,
    examples=examples,
    key=key,
    state=jax.device_put(state, everywhere),
    model=model,
    predict=evaluate.make_predict(model, mean=settled.mean, std=settled.std),
    images={
      name: evaluate.place(images, mesh)
      for name, (images, _) in places.items()
      if len(images)
    },
    labels={name: labels for name, (_, labels) in places.items()},
    target=None if target is None else np.asarray(target).mean(0),
    primary=config.hyper.get("offset", "none"),
    bias=settled.bias,
    num_train=task.num_examples,
    num_classes=task.num_classes,
    images_per_step=math.prod(seen.shape[:2]),
    mesh=mesh,
    everywhere=everywhere,
  )


def student_images(config, images, ids, answers: Answers) -> np.ndarray:
  """What the student's step begins with: the images, or the teacher's view."""
  if config.student_view == "fresh" or answers.view == "clean":
    return images
  return teacher.augmented(
    images, ids, seed=answers.view_seed, pad=answers.view_pad
  )


def check_finite(config, method, state, model, examples, shape) -> None:
  """A loss that cannot take a class ruled out (-inf) says so before it runs."""
  if not examples.teachers:
    return
  finite = np.isfinite(np.asarray(examples.teachers[0].logits)).all(-1)
  if finite.all():
    return
  rows = np.resize(np.flatnonzero(~finite), shape)

  def grouped(array):
    return array.reshape(*shape, *array.shape[1:])

  images = jnp.zeros((math.prod(shape), *examples.images.shape[1:]))
  student, _ = model.apply(
    state.params["student"], state.model, images, train=False
  )
  batch = Batch(
    index=rows,
    images=grouped(images),
    labels=examples.labels[rows],
    teachers=jax.tree.map(lambda x: x[rows], examples.teachers),
  )
  value, _ = method.loss(
    state.params["method"],
    state.method,
    jax.tree.map(grouped, student),
    batch,
    jax.random.key(0),
    0,
  )
  if not np.isfinite(value):
    raise UserError(
      f"{(~finite).sum()} answers rule classes out (-inf), which "
      f"{config.method!r} cannot match: kd takes them, its loss is defined by "
      "probabilities"
    )
