"""What is asked of a teacher, and how many calls it may cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ckd_jax.errors import UserError, nearest
from ckd_jax.table import Subject
from ckd_jax.teacher.views import VIEWS, augmented


class Order(NamedTuple):
  """Images that a table is to hold the answers about.

  Attributes:
    subject: the data set and the split that they are of.
    rows: int[n], rows of the split, in the order of asking.
    needs: fields of `Outputs` that the answers must have.
    view: "clean", or "augmented": one crop and flip per image.
    view_seed: of the augmented view.
    pad: pixels of black border of the augmented view.
  """

  subject: Subject
  rows: Sequence[int]
  needs: frozenset[str] = frozenset({"logits"})
  view: str = "clean"
  view_seed: int = 0
  pad: int = 4

  @property
  def ids(self) -> list[str]:
    """Of the images, in the order of asking."""
    return [str(self.subject.split.ids[row]) for row in self.rows]

  def facts(self, teacher: str, kind: str) -> dict[str, Any]:
    """What table.json must say for its answers to be these.

    Args:
      teacher: name of the one who answers.
      kind: of the answers.
    """
    return {
      **self.subject.facts(),
      **self.manner(teacher, kind),
    }

  def manner(self, teacher: str, kind: str) -> dict[str, Any]:
    """The part of `facts` that is about the asking, not about the images."""
    augment = self.view == "augmented"
    return {
      "teacher": teacher,
      "kind": kind,
      "view": self.view,
      "view_seed": int(self.view_seed) if augment else None,
      "view_pad": int(self.pad) if augment else None,
    }

  def images(self, rows: list[int]) -> np.ndarray:
    """What is shown of these rows of the split: uint8[n, h, w, c]."""
    split = self.subject.split
    if self.view == "clean":
      return split.images[rows]
    ids = [str(split.ids[row]) for row in rows]
    return augmented(split.images[rows], ids, self.view_seed, self.pad)

  def check(self) -> None:
    """Raises UserError for a view that there is not."""
    if self.view not in VIEWS:
      raise UserError(
        f"unknown view {self.view!r}: {nearest(self.view, VIEWS)}"
      )


class BudgetExceeded(UserError):
  """A call was refused before it was made."""


class CallBudget:
  """Calls that may still be made; `spend` is called before every request.

  Args:
    limit: how many there may be.
    spent: how many there were.
    name: of the setting that allows them, for messages.
  """

  def __init__(self, limit: int, spent: int, name: str = "budget"):
    self.limit, self.spent, self.name = limit, spent, name

  @property
  def left(self) -> int:
    """Calls that may still be made."""
    return max(self.limit - self.spent, 0)

  def check(self, calls: int) -> None:
    """Refuses `calls`, all of them, where they are more than are left."""
    if self.spent + calls > self.limit:
      raise BudgetExceeded(
        f"teacher call {self.limit + 1} was not made, {self.name} is"
        f" {self.limit}: raise it, or ask about fewer images; the answers so"
        " far are kept"
      )

  def spend(self, calls: int) -> None:
    """Takes what `check` allowed."""
    self.spent += calls
