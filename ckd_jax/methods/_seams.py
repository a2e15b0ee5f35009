"""The two seams: `Method`, who compares, and `Model`, who answers.

Compare optax.GradientTransformation: pure functions in a NamedTuple. Every
array of a `Batch`, and every array of the student's `Outputs` that a method's
loss sees, begins with [batch, group].
"""

from typing import Any, NamedTuple, Protocol

import jax


class Outputs(NamedTuple):
  """What a network says about images; a black box fills logits only.

  Attributes:
    logits: [..., classes].
    embedding: [..., dim], pooled, before the classifier.
    maps: of [..., h, w, c], stage outputs in RepDistiller's order.
    preactivations: of [..., h, w, c], the same before their ReLU.
  """

  logits: jax.Array
  embedding: jax.Array | None = None
  maps: tuple = ()
  preactivations: tuple = ()


class Task(NamedTuple):
  """What a method may know about a run.

  Attributes:
    num_examples: training images. It may be a tracer: arithmetic only, never a
      shape. Where a method needs a shape it takes `labels.shape[0]`, the rows
      of the (padded) table.
    num_classes: length of the logits.
    batch_size: rows of `Method.sample`.
    steps_per_epoch: steps in one pass over the images; it may be a tracer.
    labels: int32[rows].
  """

  num_examples: int | jax.Array
  num_classes: int
  batch_size: int
  steps_per_epoch: int | jax.Array
  labels: jax.Array


class Batch(NamedTuple):
  """What is compared in one step.

  Attributes:
    index: int32[batch, group], rows of the table.
    images: float[batch, group, h, w, c], normalised.
    labels: int32[batch, group].
    weights: float[batch, group], how images were mixed; None if they were not.
    teachers: Outputs of [batch, group, ...], under stop_gradient.
  """

  index: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
  images: jax.Array
  labels: jax.Array
  weights: jax.Array | None = None
  teachers: tuple[Outputs, ...] = ()


class Sample(Protocol):
  """Says who is compared with whom in a step."""

  def __call__(
    self, key: jax.Array, step: jax.Array, task: Task, state: Any
  ) -> jax.Array:
    """Returns int32[batch, group], rows of the table, none twice in a group.

    Args:
      key: the same in every step.
      step: int32, how many steps are done.
      task: sizes, and labels.
      state: of the method.
    """
    ...


class Init(Protocol):
  """Makes a method's heads and memories."""

  def __call__(
    self, key: jax.Array, task: Task, student: Outputs, teacher: Outputs
  ) -> tuple[Any, Any]:
    """Returns (params, state): what is trained, and what is remembered.

    Args:
      key: draws initial values.
      task: sizes, and labels.
      student: for shapes, [1, 1, ...].
      teacher: for shapes, [1, 1, ...].
    """
    ...


class Loss(Protocol):
  """Compares the student with the teacher."""

  def __call__(
    self,
    params: Any,
    state: Any,
    student: Outputs,
    batch: Batch,
    key: jax.Array,
    step: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """Returns (scalar, (the method's next state, metrics by name)).

    Args:
      params: of the method's heads.
      state: of the method's memories.
      student: of [batch, group, ...].
      batch: with the teacher's answers.
      key: of this step.
      step: int32, how many steps were done before.
    """
    ...


class Prepare(Protocol):
  """Changes a batch before the student sees it: mixes images, say."""

  def __call__(self, key: jax.Array, batch: Batch) -> Batch: ...


class OffsetTarget(Protocol):
  """What the student's logits are compared with, up to an offset."""

  def __call__(self, batch: Batch) -> jax.Array | None:
    """Returns [..., classes]; None where the loss fixes the offset itself."""
    ...


class Finish(Protocol):
  """Hands a method's heads and memories on, after a stage."""

  def __call__(self, params: Any, state: Any) -> tuple[Any, Any]:
    """Returns (params, state); what moves to the state is frozen there."""
    ...


def stateless(key, task, student, teacher) -> tuple[dict, dict]:
  """`Method.init` of a method with no heads and no memory."""
  del key, task, student, teacher
  return {}, {}


def unchanged(key, batch: Batch) -> Batch:
  """`Method.prepare` of a method that does not mix images."""
  del key
  return batch


def no_offset(batch: Batch) -> None:
  """`Method.offset_target` of a loss that fixes the offset by itself."""
  del batch


def as_they_are(params, state):
  """`Stage.finish` of a stage whose heads simply go on."""
  return params, state


class Stage(NamedTuple):
  """A stretch of training before the main one (FT, AB, FSP).

  Attributes:
    epochs: passes over the table.
    learning_rate: constant.
    loss: in place of the method's.
    trains_student: whether those of its parameters move that the loss reaches.
    finish: what comes of heads and memories.
  """

  epochs: int
  learning_rate: float
  loss: Loss
  trains_student: bool = True
  finish: Finish = as_they_are


class Method(NamedTuple):
  """A distillation method as pure functions.

  Attributes:
    sample: who is compared with whom.
    init: heads and memories.
    loss: the comparison.
    prepare: what happens to a batch before the forward pass.
    needs: fields of `Outputs` that the teacher must provide.
    offset_target: what a fitted offset aims at.
    passes: sizes into which the group axis is cut for separate train-mode
      passes; () is one pass over everything.
    stages: before the main one, in order.
    max_teachers: r2kd mixes in a second one where there is one.
  """

  sample: Sample
  init: Init
  loss: Loss
  prepare: Prepare = unchanged
  needs: frozenset[str] = frozenset({"logits"})
  offset_target: OffsetTarget = no_offset
  passes: tuple[int, ...] = ()
  stages: tuple[Stage, ...] = ()
  max_teachers: int = 1


class ModelInit(Protocol):
  """Makes a network's weights."""

  def __call__(self, key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
    """Returns (params, state): what is trained, and batch statistics.

    Args:
      key: draws initial values.
      images: float[n, h, w, c]; only the shape counts.
    """
    ...


class ModelApply(Protocol):
  """Runs a network."""

  def __call__(
    self,
    params: Any,
    state: Any,
    images: jax.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, Any]:
    """Returns Outputs of [n, ...] and the next batch statistics.

    Args:
      params: of `ModelInit`.
      state: of `ModelInit`; it comes back unchanged where `train` is false.
      images: float[n, h, w, c], normalised.
      train: whether batch statistics move and dropout drops.
      key: for dropout; None where nothing is dropped.
    """
    ...


class Model(NamedTuple):
  """A network as pure functions over nested dicts of arrays.

  Attributes:
    init: (key, images) -> (params, state).
    apply: (params, state, images, *, train, key=None) -> (Outputs, state).
  """

  init: ModelInit
  apply: ModelApply
