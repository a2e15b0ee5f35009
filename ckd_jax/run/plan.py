"""What a run will do, settled and rehearsed before a teacher is asked."""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ckd_jax import augment, export, methods, models
from ckd_jax.data import Dataset, Lazy, subset
from ckd_jax.data.budget import Selection
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Method, Model, Outputs, Stage, Task
from ckd_jax.run import stages
from ckd_jax.step import (
  Examples,
  State,
  init_state,
  make_gradients,
  make_step,
  make_update,
  optimizer,
)


class Plan(NamedTuple):
  """What is settled before the teacher is asked anything."""

  method: Method
  model: Model
  task: Task
  images: np.ndarray | Lazy  # uint8[rows, h, w, c], as they are
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
  # A live teacher looks at whatever the student sees.
  fresh = config.teacher.get("live") or config.student_view == "fresh"
  settled = Plan(
    method=method,
    model=models.load(
      config.student, task.num_classes, dtype=jnp.dtype(config.dtype)
    ),
    task=task,
    images=subset(dataset.train.images, chosen.train),
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
  with refusing(config):
    check_student(config, settled)
    if not method.needs - {"logits"}:
      logits = (task.num_examples, task.num_classes)
      rehearse(settled, Outputs(jax.ShapeDtypeStruct(logits, jnp.float16)))
    elif config.teacher.source == "train":
      future = models.load(config.teacher.name, task.num_classes)
      rehearse(settled, answers_of(future, settled.images))
    if config.hyper.get("offset") == "fit":
      settled = settled._replace(bias=find_bias(settled))
  return settled


@contextlib.contextmanager
def refusing(config):
  """What a student or a method raises becomes one line."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # a student of one's own may raise anything
    reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    raise UserError(
      f"student {config.student} with method {config.method} cannot make a "
      f"step: {reason}"
    ) from error


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


def answers_of(model: Model, images, weights=None) -> Outputs:
  """The shapes of a network's answers about these images."""

  def answer(images):
    params, state = weights or model.init(jax.random.key(0), images)
    return model.apply(params, state, images, train=False)[0]

  return jax.eval_shape(answer, jax.ShapeDtypeStruct(images.shape, jnp.float32))


def check_student(config, settled: Plan) -> None:
  """Refuses a student that does not show what the method compares."""
  shown = answers_of(settled.model, settled.images[:1])
  given = {
    field for field in shown._fields if jax.tree.leaves(getattr(shown, field))
  }
  if lacking := sorted(settled.method.needs - given):
    work = ", ".join(methods.working_with(frozenset(given)))
    raise UserError(
      f"student {config.student} gives no {' and no '.join(lacking)}, which "
      f"method {config.method!r} compares: choose another student, or of the "
      f"methods {work}"
    )


def rehearse(settled: Plan, answers: Outputs) -> None:
  """Traces the first step, with shapes in place of numbers.

  Args:
    settled: the run.
    answers: shapes of a teacher's answers about every row. Beyond logits only
      the teacher knows them: such methods are rehearsed when it is there.
  """
  examples = Examples(
    jax.ShapeDtypeStruct(settled.images.shape, jnp.uint8),
    jax.ShapeDtypeStruct((settled.task.num_examples,), jnp.int32),
    (answers,) if settled.method.needs else (),
  )

  def first_step(key, examples):
    state = begin(settled, key, examples)
    # With the number that is known here a sampler can refuse it.
    settled.method.sample(key, 0, settled.task, state.method)
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
