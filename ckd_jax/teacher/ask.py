"""Asks a teacher once per image: journals, counts, refuses call budget + 1."""

import functools
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ckd_jax import methods, table
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.system import console, files, redacted
from ckd_jax.table import Answers, Form, Table
from ckd_jax.teacher.journal import Journal
from ckd_jax.teacher.ledger import Ledger
from ckd_jax.teacher.order import CallBudget, Order
from ckd_jax.teacher.pool import send_all
from ckd_jax.teacher.progress import AskingProgress
from ckd_jax.teacher.teacher import Teacher


class Bought(NamedTuple):
  """A table that holds every answer of an order, and what they cost.

  Attributes:
    table: with these answers, and perhaps others.
    paid: answers that the owner of the ledger bought, now or before.
    repeated: calls that it made a second time, not counted in `paid`.
    failed: requests that failed in this build.
    may_buy: calls that may still be made for this table.
  """

  table: Table
  paid: int
  repeated: int
  failed: int
  may_buy: int


def build(
  teacher: Teacher,
  order: Order,
  table_path: epath.PathLike,
  *,
  budget: int,
  max_calls: int | None = None,
  part_size: int = 512,
  ledger: Ledger | None = None,
) -> Bought:
  """Asks about the ordered images that the table does not hold yet.

  A killed build loses no answer: requests in flight are sent again and counted
  separately. Runs that share the table take turns.

  Args:
    teacher: the one that is asked.
    order: the images, and the view of them.
    table_path: folder of the table, made if absent.
    budget: how many of the ordered images may be asked about.
    max_calls: calls that the table may ever cost, repeated ones included; None
      lets answers that cannot be used count against the budget, too.
    part_size: images per file; at most one local part is asked about again.
    ledger: counts what the run paid; None counts this build alone.

  Raises:
    BudgetExceeded: more is wanted than a budget allows; what was answered
      before is kept.
    UserError: the table is another teacher's, view's or data set's, the teacher
      failed, or its answers are unusable.
  """
  order.check()
  if teacher.request_size is not None and order.needs - {"logits"}:
    work = ", ".join(methods.working_with(frozenset({"logits"})))
    raise UserError(
      f"{teacher.name} is a black box and gives logits only, not"
      f" {', '.join(sorted(order.needs - {'logits'}))}: these methods work with"
      f" logits only: {work}"
    )
  path, ledger = epath.Path(table_path), ledger or Ledger()
  found, failed = _existing(path, teacher, order), 0
  if found is None or not set(order.ids) <= set(found.ids):
    if teacher.ask is None:
      raise UserError(
        f"the table {path} lacks some of the {len(order.rows)} images, and"
        " there is no teacher to ask"
      )
    with files.lock(path):
      failed = _fill(path, teacher, order, budget, max_calls, part_size, ledger)
    found = table.read(path)
  if max_calls is None:
    may_buy = budget - len(set(order.ids) & set(found.ids))
  else:
    may_buy = max_calls - found.info["calls"] - found.info["repeated_calls"]
  paid, repeated = ledger.paid(found.info["parts"])
  return Bought(found, paid, repeated, failed, max(may_buy, 0))


def _existing(path, teacher: Teacher, order: Order) -> Table | None:
  """The table, if there is one, checked against the order."""
  if not table.exists(path):
    return None
  info = table.read_info(path)
  table.require(path, info, **order.facts(teacher.name, teacher.kind))
  if not info["parts"]:
    return None
  held = table.fields(info)
  if lacking := order.needs - held:
    work = ", ".join(methods.working_with(held))
    raise UserError(
      f"the table {path} holds {', '.join(sorted(held))}, but not"
      f" {', '.join(sorted(lacking))}: choose another table.path, or a method"
      f" that works with it: {work}"
    )
  return table.read(path)


def _fill(
  path: epath.Path,
  teacher: Teacher,
  order: Order,
  budget: int,
  max_calls: int | None,
  part_size: int,
  ledger: Ledger,
) -> int:
  """Asks while holding the table's lock; returns the requests that failed."""
  found = _existing(path, teacher, order)
  info = table.read_info(path) if table.exists(path) else None
  held = set(found.ids) if found else set()
  # Every part of a table holds the same fields.
  needs = table.fields(info) if found else order.needs
  missing = [name for name in order.ids if name not in held]
  before = info or table.new_info(
    order.subject.facts(),
    missing=[],
    **order.manner(teacher.name, teacher.kind),
  )
  promised = list(dict.fromkeys([*before["missing"], *missing]))
  if promised != before["missing"] or info is None:
    # Written before the first request, so no other teacher fills this folder.
    info = table.write_info(path, before | {"missing": promised})
  journal = Journal(path / "journal.jsonl")
  kept = sum(name in journal.answers for name in missing)
  there = len(order.rows) - len(missing) + kept
  if max_calls is None:
    wasted = sum(journal.refused[name] for name in order.ids)
    budgets = [CallBudget(budget, there + wasted, wasted=wasted)]
  else:
    sent = info["calls"] + info["repeated_calls"] + journal.asked.total()
    budgets = [
      CallBudget(budget, there),
      CallBudget(max_calls, sent, "teacher.max_calls"),
    ]
  progress = AskingProgress(teacher, len(missing), kept)
  if len(missing) > kept:
    _say_what_is_asked(teacher, journal, missing, there)
  asker = _Asker(teacher, order, needs, journal, budgets, progress)
  for start in range(0, len(missing), part_size):
    part = missing[start : start + part_size]
    try:
      answers = asker.answers(part)
    except KeyboardInterrupt as stop:
      raise KeyboardInterrupt(progress.standing()) from stop
    repeated = journal.repeated(part)
    counts = {
      "calls": info["calls"] + len(part),
      "repeated_calls": info["repeated_calls"] + repeated,
    }
    announce = functools.partial(ledger.enter, repeated=repeated)
    info = table.append(path, info | counts, part, answers, announce=announce)
    journal.settle(part)
  progress.finish()
  return progress.failed


def _say_what_is_asked(
  teacher: Teacher, journal: Journal, missing: list[str], there: int
) -> None:
  """How many images, and which of them may cost a second time."""
  wanted = [name for name in missing if name not in journal.answers]
  others = f"; {there} others are answered already" if there else ""
  console.say(f"asking {teacher.name} about {len(wanted)} images{others}")
  if again := sum(journal.asked[name] > 0 for name in wanted):
    console.say(
      f"{again} of them were asked about before, and no usable answer was kept:"
      " they may cost a second time"
    )


class _Asker:
  """Asks for the answers of one part after the other.

  Args:
    teacher: the one that is asked.
    order: the images, and the view of them.
    needs: fields of `Outputs` that the answers must have.
    journal: records requests and answers until a part is durable.
    budgets: each of them can refuse a request.
    progress: counts answers and failures.
  """

  def __init__(
    self,
    teacher: Teacher,
    order: Order,
    needs: frozenset[str],
    journal: Journal,
    budgets: list[CallBudget],
    progress: AskingProgress,
  ):
    self._teacher, self._order, self._needs = teacher, order, needs
    self._journal, self._budgets = journal, budgets
    self._progress = progress
    self._rows = dict(zip(order.ids, map(int, order.rows), strict=True))
    self._guard = threading.Lock()
    self._is_black_box = teacher.request_size is not None
    self._is_over = False

  def answers(self, ids: list[str]) -> Answers:
    """The answers about these images, including those in the journal."""
    if not self._is_black_box:
      answers = self._send(ids)
      self._progress.answered(answers.values, self._journal.repeated(ids))
      return answers
    journal = self._journal
    unasked = [name for name in ids if name not in journal.answers]
    size = self._teacher.request_size
    requests = [unasked[i : i + size] for i in range(0, len(unasked), size)]
    at_once = min(self._teacher.concurrency, len(requests))
    try:
      send_all(self._send, requests, at_once, self._progress.stopping)
    except BaseException:
      with self._guard:
        self._is_over = True  # what is left behind may write no more
      self._progress.finish()
      raise
    flat = np.stack([journal.answers[name] for name in ids])
    return Answers(self._order.form.unpack(flat))

  def _send(self, request: list[str]) -> Answers:
    journal = self._journal
    rows = [self._rows[name] for name in request]
    if self._is_black_box:
      asked = self._order.questions(rows)
    else:
      asked = self._order.inputs(rows)
    with self._guard:
      for budget in self._budgets:  # all of them, before any is spent
        budget.check(len(request))
      for budget in self._budgets:
        budget.spend(len(request))
      journal.ask(request)
    try:
      answers = self._teacher.ask(asked, needs=self._needs)
    except Exception:
      with self._guard:
        if not self._is_over:
          journal.fail(request)
      raise
    form = self._order.form
    try:
      answers = _checked(
        answers, len(request), form, self._needs, self._teacher
      )
    except UserError:
      with self._guard:
        if self._is_black_box and not self._is_over:
          journal.refuse(request)
      raise
    if self._is_black_box:
      with self._guard:
        if self._is_over:
          return answers
        journal.answer(request, form.pack(answers.values))
        repeated = journal.repeated(request)
      self._progress.answered(answers.values, repeated)
    return answers


def _checked(
  answers: Answers,
  count: int,
  form: Form,
  needs: frozenset[str],
  teacher: Teacher,
) -> Answers:
  """Refuses answers that no student can use; keeps what the table wants."""
  try:
    values = table.as_numbers(answers.values)
  except (TypeError, ValueError) as error:
    raise UserError(
      f"the teacher {teacher.name} did not answer with numbers:"
      f" {redacted.told(error)}"
    ) from error
  if isinstance(values, TopK):
    wanted: Any = form.shapes(count)
    shape = jax.tree.map(np.shape, values)
  else:
    wanted, shape = form._replace(top_k=0).shapes(count), values.shape
  if shape != wanted:
    raise UserError(
      f"the teacher {teacher.name} answered with shape {shape}, not {wanted}:"
      f" {_ROWS if form.positions is None else _TEXTS}"
    )
  require(teacher.name, table.given(answers), needs)
  try:
    if isinstance(values, TopK):
      form.check_kept(values)
    else:
      table.validate(values, teacher.kind, form.classes)
  except UserError as error:
    raise UserError(f"the teacher {teacher.name}: {error}") from error
  stored = {field: getattr(answers, field) for field in needs - {"logits"}}
  return Answers(form.kept(values, teacher.kind), **stored)


_ROWS = "one row per image, one column per class"
_TEXTS = "texts, positions of each, tokens of the vocabulary"


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
