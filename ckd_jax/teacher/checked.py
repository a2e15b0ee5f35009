"""Refuses answers that no student can use, and names their rows."""

from collections.abc import Iterable, Sequence

import numpy as np

from ckd_jax import methods, table
from ckd_jax.errors import UserError
from ckd_jax.system import redacted
from ckd_jax.table import Answers
from ckd_jax.teacher.order import Order
from ckd_jax.teacher.teacher import Teacher


def checked(
  answers: Answers,
  ids: Sequence[str],
  order: Order,
  needs: frozenset[str],
  teacher: Teacher,
) -> Answers:
  """The answers as float32.

  Args:
    answers: whatever a teacher gave.
    ids: of the n rows that it was asked about.
    order: gives the classes, and what the rows are.
    needs: fields of `Outputs` that the answers must have.
    teacher: gives the name and the kind of the answers.

  Returns:
    Arrays [n, ...].

  Raises:
    UserError: they are no numbers, of another shape, or not of their kind.
  """
  rows = order.subject.split.kind
  num_classes = len(order.subject.class_names)
  about = f"about {ids[0]}" + (f" to {ids[-1]}" if len(ids) > 1 else "")
  try:
    values = np.asarray(answers.values)
    if values.dtype.kind == "c":
      raise TypeError("complex ones have no order")
    values = values.astype(np.float32)
  except (TypeError, ValueError) as error:
    raise UserError(
      f"the teacher {teacher.name} did not answer with numbers {about}:"
      f" {redacted.told(error)}"
    ) from error
  if values.shape != (len(ids), num_classes):
    raise UserError(
      f"the teacher {teacher.name} answered with shape {values.shape}, not"
      f" ({len(ids)}, {num_classes}), {about}: one row per {rows[:-1]}, one"
      " column per class"
    )
  require(teacher.name, table.given(answers), needs, rows)
  try:
    table.validate(values, teacher.kind, num_classes)
  except UserError as error:
    wrong = next(
      (
        name
        for name, row in zip(ids, values, strict=True)
        if _is_wrong(row, teacher.kind)
      ),
      ids[0],
    )
    raise UserError(
      f"the teacher {teacher.name}, asked about {wrong}: {error}"
    ) from error
  stored = {field: getattr(answers, field) for field in needs - {"logits"}}
  return Answers(values, **stored)


def _is_wrong(row: np.ndarray, kind: str) -> bool:
  """Whether float[classes] alone is refused."""
  try:
    table.validate(row[None], kind, len(row))
  except UserError:
    return True
  return False


def require(
  name: str, given: Iterable[str], needs: Iterable[str], rows: str
) -> None:
  """Refuses a teacher that lacks a field.

  Args:
    name: identifies the teacher in the message.
    given: fields of `Outputs` that it fills.
    needs: fields that a method compares.
    rows: what is learned, "images" or "texts".

  Raises:
    UserError: lists the methods that need no other fields.
  """
  if lacking := sorted(set(needs) - set(given)):
    work = ", ".join(methods.working_with(frozenset(given), rows))
    raise UserError(
      f"the teacher {name} gives no {' and no '.join(lacking)}: choose another"
      f" teacher, or a method that works without: {work}"
    )
