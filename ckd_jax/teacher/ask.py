"""Asks a teacher once per image: journals, counts, refuses call budget + 1."""

import functools
from typing import Any, NamedTuple

from etils import epath

from ckd_jax import methods, table
from ckd_jax.errors import UserError
from ckd_jax.system import console, files
from ckd_jax.table import Table
from ckd_jax.teacher.asker import Asker
from ckd_jax.teacher.journal import Journal
from ckd_jax.teacher.ledger import Ledger
from ckd_jax.teacher.order import CallBudget, Limits, Order
from ckd_jax.teacher.progress import AskingProgress
from ckd_jax.teacher.teacher import Teacher
from ckd_jax.teacher.twins import Twins


class Bought(NamedTuple):
  """A table that holds every answer of an order, and what they cost.

  Attributes:
    table: with these answers, and perhaps others.
    paid: answers that the owner of the ledger bought, now or before.
    repeated: calls that it made a second time, not counted in `paid`.
    failed: attempts that brought no answer, images each, before these were
      bought; a service may bill them.
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
  max_attempts: int | None = None,
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
    max_attempts: images that may ever be sent for the table, failed requests
      included; None is no limit.
    part_size: images per file; at most one local part is asked about again.
    ledger: counts what the run paid; None counts this build alone.

  Raises:
    BudgetExceeded: more is wanted than a budget allows; what was answered
      before is kept.
    UserError: the table is another teacher's, view's or data set's, the teacher
      failed, or its answers are unusable.
  """
  order.check()
  rows = order.subject.split.kind
  if teacher.manner is not None and order.needs - {"logits"}:
    work = ", ".join(methods.working_with(frozenset({"logits"}), rows))
    raise UserError(
      f"{teacher.name} is a black box and gives logits only, not"
      f" {', '.join(sorted(order.needs - {'logits'}))}: these methods work with"
      f" logits only: {work}"
    )
  path, ledger = epath.Path(table_path), ledger or Ledger()
  found = _existing(path, teacher, order)
  if found is None or not set(order.ids) <= set(found.ids):
    if teacher.ask is None:
      raise UserError(
        f"the table {path} lacks some of the {len(order.rows)} {rows}, and"
        " there is no teacher to ask"
      )
    allowed = _Allowed(budget, max_calls, max_attempts)
    with files.lock(path):
      _fill(path, teacher, order, allowed, part_size, ledger)
    found = table.read(path)
  if max_calls is None:
    may_buy = budget - len(set(order.ids) & set(found.ids))
  else:
    may_buy = max_calls - found.info["calls"] - found.info["repeated_calls"]
  return Bought(found, *ledger.paid(found.info["parts"]), max(may_buy, 0))


def asked_about(path: epath.PathLike) -> frozenset[str]:
  """Ids of all that a table was paid for, or asks for, with its journal."""
  path = epath.Path(path)
  if not table.exists(path):
    return frozenset()
  with files.lock(path):
    journal = Journal(path / "journal.jsonl")
  held = table.read(path).ids if table.read_info(path)["parts"] else ()
  return frozenset((*held, *journal.answers, *+journal.asked))


def _existing(path, teacher: Teacher, order: Order) -> Table | None:
  """The table, if there is one, checked against the order."""
  if not table.exists(path):
    if any(path.glob("part-*.npz")):  # a kill leaves none: it was written first
      raise UserError(
        f"{path} holds answers and no table.json that names them: restore it"
        " from a copy, or choose another table.path and pay again"
      )
    return None
  info = table.read_info(path)
  table.require(path, info, **order.facts(teacher.name, teacher.kind))
  if not info["parts"]:
    return None
  held = table.fields(info)
  if lacking := order.needs - held:
    rows = order.subject.split.kind
    work = ", ".join(methods.working_with(held, rows))
    raise UserError(
      f"the table {path} holds {', '.join(sorted(held))}, but not"
      f" {', '.join(sorted(lacking))}: choose another table.path, or a method"
      f" that works with it: {work}"
    )
  return table.read(path)


class _Allowed(NamedTuple):
  """The limits of `build`."""

  budget: int
  max_calls: int | None
  max_attempts: int | None


def _fill(
  path: epath.Path,
  teacher: Teacher,
  order: Order,
  allowed: _Allowed,
  part_size: int,
  ledger: Ledger,
) -> None:
  """Asks while holding the table's lock."""
  found = _existing(path, teacher, order)
  held = set(found.ids) if found else set()
  missing = [name for name in order.ids if name not in held]
  info = _promised(path, teacher, order, missing)
  # Every part of a table holds the same fields.
  needs = table.fields(info) if found else order.needs
  journal = Journal(path / "journal.jsonl")
  journal.settle(held)  # a kill may have come between a part and this
  kept = sum(name in journal.answers for name in missing)
  there = len(order.rows) - len(missing) + kept
  progress = AskingProgress(teacher, len(missing), kept)
  if len(missing) > kept:
    rows = order.subject.split.kind
    _say_what_is_asked(teacher, rows, journal, missing, there)
  limits = _limits(allowed, order, journal, info, there)
  twins = _twins(teacher, order, journal, found)
  asker = Asker(teacher, order, needs, journal, limits, progress, twins)
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
    announce = functools.partial(
      ledger.enter,
      repeated=repeated,
      failed=sum(journal.failed[name] for name in part),
    )
    info = table.append(path, info | counts, part, answers, announce=announce)
    journal.settle(part)
  progress.finish()
  twins.finish()


def _promised(
  path: epath.Path, teacher: Teacher, order: Order, missing: list[str]
) -> dict[str, Any]:
  """The contents of table.json, which promises the missing answers, too."""
  info = table.read_info(path) if table.exists(path) else None
  before = info or table.new_info(
    order.subject.facts(),
    missing=[],
    form=order.form,
    **order.manner(teacher.name, teacher.kind),
  )
  promised = list(dict.fromkeys([*before["missing"], *missing]))
  if info is None or promised != before["missing"]:
    # Written before the first request, so no other teacher fills this folder.
    info = table.write_info(path, before | {"missing": promised})
  return info


def _limits(
  allowed: _Allowed, order: Order, journal: Journal, info: dict, there: int
) -> Limits:
  """What may be spent, less what was; `there` answers are not asked again."""
  sent = info["calls"] + info["repeated_calls"] + journal.asked.total()
  budget = functools.partial(CallBudget, rows=order.subject.split.kind)
  if allowed.max_calls is None:
    wasted = sum(journal.refused[name] for name in order.ids)
    calls = [budget(allowed.budget, there + wasted, wasted=wasted)]
  else:
    calls = [
      budget(allowed.budget, there),
      budget(allowed.max_calls, sent, "teacher.max_calls"),
    ]
  if allowed.max_attempts is None:
    return Limits(calls)
  sent += journal.failed.total()
  attempts = budget(allowed.max_attempts, sent, "teacher.max_attempts")
  return Limits(calls, [attempts])


def _twins(
  teacher: Teacher, order: Order, journal: Journal, found: Table | None
) -> Twins:
  """Compares with the answers that are there already, of a black box."""
  twins = Twins(teacher.name)
  if teacher.manner is None:
    return twins
  rows = dict(zip(order.ids, map(int, order.rows), strict=True))
  known = (
    dict(zip(found.ids, found.answers.values, strict=True)) if found else {}
  )
  known |= journal.answers
  ids = [name for name in order.ids if name in known]
  if ids:
    questions = order.questions([rows[name] for name in ids])
    twins.look(ids, questions, [known[name] for name in ids])
  return twins


def _say_what_is_asked(
  teacher: Teacher, rows: str, journal: Journal, missing: list[str], there: int
) -> None:
  """How many rows, and which of them may cost a second time."""
  wanted = [name for name in missing if name not in journal.answers]
  others = f"; {there} others are answered already" if there else ""
  console.say(f"asking {teacher.name} about {len(wanted)} {rows}{others}")
  if again := sum(journal.asked[name] > 0 for name in wanted):
    console.say(
      f"{again} of them were asked about before, and no usable answer was kept:"
      " they may cost a second time"
    )
