"""Refuses answers that no student can use, and names their images."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np

from ckd_jax import methods, table
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.system import redacted
from ckd_jax.table import Answers, Form
from ckd_jax.teacher.teacher import Teacher

_ROWS = "one row per image, one column per class"
_TEXTS = "texts, positions of each, tokens of the vocabulary"


def checked(
  answers: Answers,
  ids: Sequence[str],
  form: Form,
  needs: frozenset[str],
  teacher: Teacher,
) -> Answers:
  """The answers as float32.

  Args:
    answers: whatever a teacher gave.
    ids: of the n images that it was asked about.
    form: what the table keeps of an answer.
    needs: fields of `Outputs` that the answers must have.
    teacher: gives the name and the kind of the answers.

  Returns:
    Arrays [n, ...], in the form that the table keeps.

  Raises:
    UserError: they are no numbers, of another shape, or not of their kind.
  """
  about = f"about {ids[0]}" + (f" to {ids[-1]}" if len(ids) > 1 else "")
  try:
    values = table.as_numbers(answers.values)
  except (TypeError, ValueError) as error:
    raise UserError(
      f"the teacher {teacher.name} did not answer with numbers {about}:"
      f" {redacted.told(error)}"
    ) from error
  is_kept = isinstance(values, TopK)
  wanted = form._replace(top_k=form.top_k if is_kept else 0).shapes(len(ids))
  shape = jax.tree.map(np.shape, values) if is_kept else values.shape
  if shape != wanted:
    raise UserError(
      f"the teacher {teacher.name} answered with shape {shape}, not"
      f" {wanted}, {about}: {_TEXTS if form.positions else _ROWS}"
    )
  require(teacher.name, table.given(answers), needs)
  try:
    if is_kept:
      form.check_kept(values)
    else:
      table.validate(values, teacher.kind, form.classes)
  except UserError as error:
    if is_kept:
      raise UserError(f"the teacher {teacher.name}, {about}: {error}") from None
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
  return Answers(form.kept(values, teacher.kind), **stored)


def _is_wrong(row: np.ndarray, kind: str) -> bool:
  """Whether float[..., classes] alone is refused."""
  try:
    table.validate(row[None], kind, row.shape[-1])
  except UserError:
    return True
  return False


def require(name: str, given: Iterable[str], needs: Iterable[str]) -> None:
  """Refuses a teacher that lacks a field.

  Args:
    name: identifies the teacher in the message.
    given: fields of `Outputs` that it fills.
    needs: fields that a method compares.

  Raises:
    UserError: lists the methods that need no other fields.
  """
  if lacking := sorted(set(needs) - set(given)):
    work = ", ".join(methods.working_with(frozenset(given)))
    raise UserError(
      f"the teacher {name} gives no {' and no '.join(lacking)}: choose another"
      f" teacher, or a method that works without: {work}"
    )
