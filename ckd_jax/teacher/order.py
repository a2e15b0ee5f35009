"""The rows that a teacher is asked about, and the calls they may cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ckd_jax.data import take
from ckd_jax.errors import UserError, nearest
from ckd_jax.table import Form, Subject
from ckd_jax.teacher.views import VIEWS, augmented


class Order(NamedTuple):
  """Rows whose answers a table is to hold.

  Attributes:
    subject: their data set and split.
    rows: int[n], rows of the split, in the order of asking.
    needs: fields of `Outputs` that the answers must have.
    view: of images: "clean", or "augmented", one crop and flip of each.
    view_seed: seed of the augmented view.
    pad: pixels of black border of the augmented view.
    top_k: how many of the most probable tokens are kept; 0 is all logits.
  """

  subject: Subject
  rows: Sequence[int]
  needs: frozenset[str] = frozenset({"logits"})
  view: str = "clean"
  view_seed: int = 0
  pad: int = 4
  top_k: int = 0

  @property
  def ids(self) -> list[str]:
    """Ids of the rows, in the order of asking."""
    return [str(self.subject.split.ids[row]) for row in self.rows]

  @property
  def form(self) -> Form:
    """What an answer about one row looks like."""
    return self.subject.form(self.top_k)

  def facts(self, teacher: str, kind: str) -> dict[str, Any]:
    """Entries that table.json must have for its answers to be these.

    Args:
      teacher: name of the teacher.
      kind: of its answers, "logits", "log_probs" or "probs".
    """
    return {
      **self.subject.facts(),
      **self.form.facts(),
      **self.manner(teacher, kind),
    }

  def manner(self, teacher: str, kind: str) -> dict[str, Any]:
    """The part of `facts` about teacher and view; arguments as there."""
    augment = self.view == "augmented"
    return {
      "teacher": teacher,
      "kind": "log_probs" if self.top_k else kind,
      "view": self.view,
      "view_seed": int(self.view_seed) if augment else None,
      "view_pad": int(self.pad) if augment else None,
    }

  def questions(self, rows: list[int]) -> Any:
    """What a black box is asked: texts, or the view of images."""
    questions = self.subject.split.questions
    if questions is None:
      return self.inputs(rows)
    return [str(question) for question in questions[rows]]

  def inputs(self, rows: list[int]) -> Any:
    """What a network of ours is asked: a tree of [n, ...], as stored."""
    split = self.subject.split
    inputs = take(split.inputs, rows)
    if self.view == "clean":
      return inputs
    ids = [str(split.ids[row]) for row in rows]
    return augmented(inputs, ids, self.view_seed, self.pad)

  def check(self) -> None:
    """Raises UserError for an unknown view."""
    if self.view not in VIEWS:
      raise UserError(
        f"unknown view {self.view!r}: {nearest(self.view, VIEWS)}"
      )


class BudgetExceeded(UserError):
  """A call was refused before it was made."""


class CallBudget:
  """Calls that may still be made; `spend` is called before every request.

  Args:
    limit: calls allowed.
    spent: calls made so far.
    name: the setting that limits them, for messages.
    wasted: of the calls made so far, those without a usable answer.
    rows: what is asked about, "images" or "texts".
  """

  def __init__(
    self,
    limit: int,
    spent: int,
    name: str = "budget",
    wasted: int = 0,
    rows: str = "images",
  ):
    self.limit, self.spent, self.name = limit, spent, name
    self.wasted, self.rows = wasted, rows

  @property
  def left(self) -> int:
    """Calls that may still be made."""
    return max(self.limit - self.spent, 0)

  def check(self, calls: int) -> None:
    """Refuses all of `calls` if fewer are left."""
    if self.spent + calls > self.limit:
      wasted = (
        f"; {self.wasted} calls brought no usable answer, and"
        " teacher.max_calls allows more calls than the budget"
      )
      raise BudgetExceeded(
        f"teacher call {self.limit + 1} was not made, {self.name} is"
        f" {self.limit}: raise it, or ask about fewer {self.rows}; the answers"
        f" so far are kept{wasted if self.wasted else ''}"
      )

  def spend(self, calls: int) -> None:
    """Counts calls that `check` allowed."""
    self.spent += calls


class Limits(NamedTuple):
  """What may be spent on a table.

  Attributes:
    calls: each of them is asked before an image is asked about.
    attempts: each of them is asked before every single sending.
  """

  calls: Sequence[CallBudget]
  attempts: Sequence[CallBudget] = ()

  def allow(self, calls: int) -> None:
    """Takes calls from every budget, or raises before any is taken."""
    _take(self.calls, calls)

  def send(self, attempts: int) -> None:
    """Takes attempts, or raises BudgetExceeded."""
    _take(self.attempts, attempts)


def _take(budgets: Sequence[CallBudget], count: int) -> None:
  for budget in budgets:  # all of them, before any is spent
    budget.check(count)
  for budget in budgets:
    budget.spend(count)
