"""Everything that the loop needs: the jitted step, and its table on devices."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ckd_jax import augment, evaluate, models, optimizer, stages, teacher
from ckd_jax.answers import Answers
from ckd_jax.budget import Selection
from ckd_jax.data import Dataset
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Method, Model, Task
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
  stages: tuple[stages.Phase, ...]  # what comes before it
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


def check_images(config, dataset: Dataset) -> None:
  """Refuses a normalisation that does not fit the images' channels."""
  channels = dataset.train.images.shape[-1]
  for key in ("mean", "std"):
    if len(config.dataset[key]) != channels:
      raise UserError(
        f"dataset.{key} has {len(config.dataset[key])} numbers, the images of "
        f"{dataset.name} have {channels} channels"
      )


def assemble(
  config,
  dataset: Dataset,
  chosen: Selection,
  method: Method,
  answers: Answers,
  mesh: Mesh,
) -> Fit:
  """Builds the step and puts the budgeted images and answers on the devices.

  Raises:
    UserError: the method cannot work with this batch or with these answers.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  over_data = NamedSharding(mesh, PartitionSpec("data"))
  images = dataset.train.images[chosen.train]
  labels = dataset.train.labels[chosen.train]
  task = Task(
    num_examples=len(labels),
    num_classes=len(dataset.class_names),
    batch_size=config.batch_size,
    steps_per_epoch=math.ceil(len(labels) / config.batch_size),
    labels=labels,
  )
  teachers = () if answers.outputs is None else (answers.outputs,)
  seen, augmentation = student_view(config, dataset, chosen)
  examples = jax.device_put(Examples(seen, labels, teachers), everywhere)

  dtype = jnp.dtype(config.dtype)
  model = models.load(config.student, task.num_classes, dtype=dtype)
  normalisation = {
    "mean": tuple(config.dataset.mean),
    "std": tuple(config.dataset.std),
  }
  transform = optimizer.sgd(
    config.optimizer.momentum, config.optimizer.weight_decay
  )
  rate = optimizer.schedule(
    config.schedule,
    config.optimizer.learning_rate,
    config.steps,
    config.schedule_hyper,
  )

  def step_of(method, update):
    return make_step(
      method,
      task,
      update,
      augmentation,
      shard=lambda batch: jax.lax.with_sharding_constraint(batch, over_data),
      **normalisation,
    )

  def compiled(method, rate, trains=None):
    update = make_update(
      method,
      model,
      transform,
      rate,
      live=answers.live,
      trains=trains,
      **normalisation,
    )
    step = step_of(method, update)
    return jax.jit(step, donate_argnums=0, out_shardings=everywhere)

  def reached(method, state):
    gradients = make_gradients(
      method, model, live=answers.live, **normalisation
    )
    gradient, _ = jax.jit(step_of(method, gradients))(state, examples, key)
    return jax.tree.map(lambda leaf: bool(np.any(np.asarray(leaf))), gradient)

  init_key, key = jax.random.split(jax.random.key(config.seed))
  try:
    state = init_state(
      init_key, method, task, model, transform, examples, live=answers.live
    )
    index = method.sample(key, 0, task, state.method)
  except ValueError as error:
    raise UserError(f"method {config.method}: {error}") from error
  seen_batch = jax.eval_shape(method.prepare, key, gather(examples, index))
  check_finite(config, method, state, model, examples, index)
  state = jax.device_put(state, everywhere)
  staged, state = stages.phases(
    method, state, transform, task.steps_per_epoch, compiled, reached
  )

  target = method.offset_target(
    Batch(index=None, images=None, labels=labels, teachers=teachers)
  )
  places = {
    "train": (images, labels),
    "validation": (
      dataset.train.images[chosen.validation],
      dataset.train.labels[chosen.validation],
    ),
    "test": (dataset.test.images, dataset.test.labels),
  }
  return Fit(
    step=compiled(method, rate),
    stages=staged,
    transform=transform,
    examples=examples,
    key=key,
    state=jax.device_put(state, everywhere),
    model=model,
    predict=evaluate.make_predict(model, **normalisation),
    images={
      name: evaluate.place(images, mesh)
      for name, (images, _) in places.items()
      if len(images)
    },
    labels={name: labels for name, (_, labels) in places.items()},
    target=None if target is None else np.asarray(target).mean(0),
    primary=config.hyper.get("offset", "none"),
    num_train=len(labels),
    num_classes=task.num_classes,
    images_per_step=math.prod(seen_batch.images.shape[:2]),
    mesh=mesh,
    everywhere=everywhere,
  )


def student_view(config, dataset: Dataset, chosen: Selection):
  """The training images that the student sees, and how each step changes them.

  `table` is what the teacher was asked about, unchanged from step to step.
  """
  images = dataset.train.images[chosen.train]
  if config.student_view == "fresh":
    return images, augment.make(config.augment, config.augment_padding)
  if config.teacher.view == "augmented":
    images = teacher.augmented(
      images,
      dataset.train.ids[chosen.train],
      seed=config.budget_seed,
      pad=config.augment_padding,
    )
  return images, augment.make("none", 0)


def check_finite(config, method, state, model, examples, index) -> None:
  """A loss that cannot take a class ruled out (-inf) says so before it runs."""
  if not examples.teachers:
    return
  finite = np.isfinite(np.asarray(examples.teachers[0].logits)).all(-1)
  if finite.all():
    return
  rows = np.resize(np.flatnonzero(~finite), index.shape)

  def grouped(array):
    return array.reshape(*index.shape, *array.shape[1:])

  images = jnp.zeros((index.size, *examples.images.shape[1:]))
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
