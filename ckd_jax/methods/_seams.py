"""The two seams: `Method` compares answers, `Model` gives them.

Compare optax.GradientTransformation: pure functions in a NamedTuple. Every
array of a `Batch`, and every array of the student's `Outputs` that a method's
loss sees, begins with [batch, group].
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ckd_jax.methods._networks import Ask, Outputs


class Task(NamedTuple):
  """What a method may know about a run.

  Attributes:
    num_examples: number of training rows. It may be a tracer: arithmetic
      only, never a shape. A method that needs a shape takes `labels.shape[0]`,
      the rows of the (padded) table.
    num_classes: length of the logits.
    batch_size: number of rows that `Method.sample` returns.
    steps_per_epoch: steps in one pass over the rows; it may be a tracer.
    labels: int32[rows], the class of every row of the table; of a language
      model Rows of int32[length].
    kind: of the rows, "images" or "texts", for messages.
    steps: of the whole run, at most; 0 where nobody knows.
  """

  num_examples: int | jax.Array
  num_classes: int
  batch_size: int
  steps_per_epoch: int | jax.Array
  labels: jax.Array
  kind: str = "images"
  steps: int = 0


class Batch(NamedTuple):
  """What is compared in one step.

  Attributes:
    index: int32[batch, group], rows of the table.
    inputs: what the student is shown, a tree of [batch, group, ...]: images,
      normalised, float[batch, group, h, w, c]; or tokens, int32[batch, group,
      length], 0 for padding.
    labels: int32[batch, group], classes; or int32[batch, group, length], the
      next token at each position, -1 where none is counted.
    weights: float[batch, group], the share of each row in a mixture; None if
      inputs are not mixed.
    teachers: Outputs of [batch, group, ...], one for each teacher, under
      stop_gradient.
    asked: rows about which `compose` asked the teacher, a number; None without.
  """

  index: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
  inputs: Any
  labels: jax.Array
  weights: jax.Array | None = None
  teachers: tuple[Outputs, ...] = ()
  asked: jax.Array | None = None


class Sample(Protocol):
  """Samples the rows that are compared in a step."""

  def __call__(
    self, key: jax.Array, step: jax.Array, task: Task, state: Any
  ) -> jax.Array:
    """Returns int32[batch, group], rows of the table, none twice in a group.

    Args:
      key: the run's random key, the same in every step.
      step: int32, training steps before this one.
      task: sizes and labels.
      state: the method's memories, from `Init` or from the step before.
    """
    ...


class Init(Protocol):
  """Makes a method's heads and memories."""

  def __call__(
    self, key: jax.Array, task: Task, student: Outputs, teacher: Outputs
  ) -> tuple[Any, Any]:
    """Returns (params, state), pytrees: what is trained, and what is not.

    Args:
      key: random key for initial values.
      task: sizes and labels.
      student: the student's Outputs, whose shapes count, [1, 1, ...].
      teacher: the teacher's Outputs, whose shapes count, [1, 1, ...].
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
    """Returns (float32 scalar, (next state, {name: scalar to log})).

    Args:
      params: the method's heads, from `Init`.
      state: the method's memories, from `Init` or from the step before.
      student: the student's Outputs, of [batch, group, ...].
      batch: labels and the teachers' Outputs, of [batch, group, ...].
      key: random key of this step.
      step: int32, training steps before this one.
    """
    ...


class Prepare(Protocol):
  """Changes a batch before the student's forward pass; may mix inputs."""

  def __call__(self, key: jax.Array, batch: Batch) -> Batch:
    """Returns the batch that student, live teacher and loss see.

    Args:
      key: random key of this step.
      batch: with inputs as they are shown, and the table's answers.
    """
    ...


class Compose(Protocol):
  """Makes a batch with the help of the networks: it writes texts, say."""

  def __call__(self, key: jax.Array, batch: Batch, ask: Ask) -> Batch:
    """Returns the batch that student, live teacher and loss see.

    Args:
      key: random key of this step.
      batch: after `Prepare`, with the answers of a table if there is one.
      ask: the networks.
    """
    ...


class Expert(Protocol):
  """One of several teachers."""

  def __call__(self, rows: np.ndarray) -> Outputs:
    """Returns its answers, NumPy arrays of [len(rows), ...]; each is a call.

    Args:
      rows: int[n], different positions among the rows of the budget.
    """
    ...


class Consult(Protocol):
  """Asks several teachers, each about the rows that it is needed for."""

  def __call__(
    self, experts: Sequence[Expert], labels: np.ndarray
  ) -> tuple[Outputs, ...]:
    """Returns what `Batch.teachers` are rows of: NumPy arrays of [rows, ...].

    The first of them is what the student's agreement is measured with.

    Args:
      experts: in the order of the config, the largest last.
      labels: int[rows], the class of every row of the budget.
    """
    ...


class Adapter(NamedTuple):
  """Parts of a live teacher that a method trains; its weights stay.

  Their parameters are `adapter` beside the method's heads.

  Attributes:
    init: (key, weights) -> what is trained, a tree of arrays; of the weights,
      the teacher's parameters, only the shapes count.
    apply: (trained, weights) -> the weights with which the teacher answers.
    rate: their learning rate over the student's.
  """

  init: Callable[[jax.Array, Any], Any]
  apply: Callable[[Any, Any], Any]
  rate: float = 1.0


class OffsetTarget(Protocol):
  """What the student's logits are compared with, up to an offset."""

  def __call__(self, batch: Batch) -> jax.Array | None:
    """Returns float32[..., classes]; None where the loss fixes the offset.

    Args:
      batch: labels and teachers' Outputs; other fields may be None.
    """
    ...


class Finish(Protocol):
  """Passes a method's heads and memories on after a stage."""

  def __call__(self, params: Any, state: Any) -> tuple[Any, Any]:
    """Returns (params, state); what moves to the state is frozen there.

    Args:
      params: the method's heads at the end of the stage.
      state: the method's memories at the end of the stage.
    """
    ...


def stateless(key, task, student, teacher) -> tuple[dict, dict]:
  """`Method.init` of a method with no heads and no memory."""
  del key, task, student, teacher
  return {}, {}


def unchanged(key, batch: Batch) -> Batch:
  """`Method.prepare` of a method that does not mix inputs."""
  del key
  return batch


def no_offset(batch: Batch) -> None:
  """`Method.offset_target` of a loss that fixes the offset by itself."""
  del batch


def as_they_are(params, state):
  """`Stage.finish` of a stage whose heads are trained further."""
  return params, state


class Stage(NamedTuple):
  """A stretch of training before the main one (FT, AB, FSP).

  Attributes:
    epochs: length, in passes over the training rows.
    learning_rate: constant learning rate.
    loss: replaces the method's loss.
    trains_student: whether the student's parameters that the loss reaches are
      trained.
    finish: gives the heads and memories of what comes next.
  """

  epochs: int
  learning_rate: float
  loss: Loss
  trains_student: bool = True
  finish: Finish = as_they_are


class Method(NamedTuple):
  """A distillation method as pure functions.

  Attributes:
    sample: chooses the rows that are compared.
    init: makes heads and memories.
    loss: compares student and teachers.
    prepare: changes a batch before the forward pass.
    needs: fields of `Outputs` that the teacher must provide.
    offset_target: gives what a fitted class offset aims at.
    passes: sizes into which the group axis is cut for separate train-mode
      forward passes; () is one pass over everything.
    stages: training before the main part, in order.
    max_teachers: 2 where the loss can use a pruned copy of its teacher, too.
    inputs: what it changes: "images", "texts", or "any" if it leaves inputs
      alone.
    live: whether the teacher has to answer inside the step, about what
      `prepare` or `compose` makes.
    answers: what it compares: "rows", one answer of each; "positions", one for
      each token of a language model; or "any".
    takes_top: whether the teacher's logits may be a `TopK`.
    compose: makes the batch with the networks' help, after `prepare`.
    adapter: what it trains of a live teacher, whose answers then carry a
      gradient; None leaves the teacher as it is.
    branches: which branches of the student it compares: "none", "any", or
      "ensemble", of which the last is that of the others.
    consult: asks several teachers before training; None where it has one.
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
  inputs: str = "any"
  live: bool = False
  answers: str = "rows"
  takes_top: bool = False
  compose: Compose | None = None
  adapter: Adapter | None = None
  branches: str = "none"
  consult: Consult | None = None
