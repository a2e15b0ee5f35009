"""The arrays on the devices that a step reads and changes."""

from typing import Any, NamedTuple

import jax
import numpy as np

from ckd_jax.data import View, count
from ckd_jax.methods import Batch, Model, Outputs, Task
from ckd_jax.step.rows import Rows, take_rows

_ROWS = 4096  # tables are padded to a multiple of it


class State(NamedTuple):
  """Everything that a step changes.

  Attributes:
    step: int32, number of the steps done so far.
    params: {"student": ..., "method": ...}, trees of float arrays.
    model: batch statistics of the student.
    method: memory banks, queues and lists of groups.
    optimizer: the optimizer's moments, shaped as `params`.
    level: float32, multiplies the scheduled learning rate (plateau).
  """

  step: jax.Array
  params: Any
  model: Any
  method: Any
  optimizer: Any
  level: jax.Array


class Examples(NamedTuple):
  """The budgeted inputs and the teacher's answers: one table on the device.

  Attributes:
    inputs: a tree of Rows, of uint8[h, w, c] images or int32[length] tokens;
      where the host streams, those of one batch, [batch, group, ...].
    labels: int32[rows], or Rows of int32[length].
    teachers: Outputs of Rows, one for each teacher.
    live: weights of the teachers that answer inside the step.
    count: int32, rows in use, the others are padding, or documents that a
      student reads; None is all of them.
    index: int32[batch, group], who is compared in this step, where the host
      streams; None: the step draws it.
  """

  inputs: Any
  labels: jax.Array | Rows
  teachers: tuple[Outputs, ...] = ()
  live: tuple = ()
  count: jax.Array | None = None
  index: jax.Array | None = None


class Live(NamedTuple):
  """Local teachers that answer inside the step, on the student's view.

  Attributes:
    model: architecture of all of them.
    weights: (params, state) of each.
    view: what they were shown of the inputs when they were trained.
  """

  model: Model
  weights: tuple
  view: View


def capacity(count: int) -> int:
  """Rows of a padded table: budgets of equal capacity share one program.

  Args:
    count: rows in use.
  """
  return -(-count // _ROWS) * _ROWS


def pad(
  examples: Examples, rows: int, last: Examples | None = None
) -> Examples:
  """Adds empty rows at the end of the table, flattens it, and sets `count`.

  Args:
    examples: of NumPy arrays [n, ...].
    rows: number of rows after padding.
    last: of NumPy arrays [m, ...], the last rows, which are not in the count.
  """

  def extend(array, *tail):
    gap = rows - len(array) - sum(map(len, tail))
    padded = np.pad(array, [(0, gap)] + [(0, 0)] * (array.ndim - 1))
    if tail:
      padded = np.concatenate([padded, *tail])
    return padded if padded.ndim == 1 else Rows.of(padded)

  def of(field: str):
    tails = () if last is None else (getattr(last, field),)
    return jax.tree.map(extend, getattr(examples, field), *tails)

  streamed = count(examples.inputs) < len(examples.labels)
  return examples._replace(
    inputs=examples.inputs if streamed else of("inputs"),
    labels=of("labels"),
    teachers=of("teachers"),
    count=np.int32(len(examples.labels)),
  )


def runtime_task(task: Task, examples: Examples) -> Task:
  """Replaces budget-dependent fields by traced values.

  All budgets whose tables are padded to the same size then share one program.
  """
  if examples.count is None:
    return task._replace(labels=examples.labels)
  return task._replace(
    num_examples=examples.count,
    steps_per_epoch=-(-examples.count // task.batch_size),
    labels=examples.labels,
  )


def gather(examples: Examples, index: jax.Array) -> Batch:
  """The rows of the table that `index`, int32[batch, group], names."""
  inputs, streamed = examples.inputs, examples.index is not None
  return Batch(
    index=index,
    inputs=inputs if streamed else take_rows(inputs, index),
    labels=examples.labels[index],
    teachers=take_rows(examples.teachers, index),
  )
