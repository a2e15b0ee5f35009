"""Asks the teachers of a run, each about the rows that its method wants."""

import hashlib
import re
from typing import Any

import numpy as np
from etils import epath

from ckd_jax import table, teacher
from ckd_jax.data import Dataset
from ckd_jax.errors import UserError
from ckd_jax.methods import Expert, Outputs
from ckd_jax.run.plan import Plan
from ckd_jax.system import console
from ckd_jax.table import Subject, Table
from ckd_jax.teacher import Asking, Bought, Ledger, Order, Teacher


def buy(
  asked: list[Teacher],
  asking: Asking,
  dataset: Dataset,
  rows: np.ndarray,
  plan: Plan,
  workdir: epath.Path,
) -> dict[str, Any]:
  """Asks about the rows of the budget.

  Args:
    asked: the teacher, and its pruned copy if there is one; or several
      teachers, the largest last, each with a table of its own.
    asking: settings of the teacher.
    dataset: whose training rows they are asked about.
    rows: int[n], the training part of the budget, which is the limit of each.
    plan: whose method says who is asked about what.
    workdir: folder of the run, for tables of its own.

  Returns:
    The answers and what they cost, fields of `Collected`.

  Raises:
    UserError: a teacher failed, a budget is spent, or the run's own table has
      answers about rows that are not in it.
  """
  path = epath.Path(asking.table_path or workdir / "table")
  places = [path, path.parent / f"{path.name}-pruned"]
  ledger = Ledger(workdir / "calls.json")
  if asking.experts:
    places = [path / _folder(one) for one in asked]
  elif not asking.table_path and table.exists(path):
    ledger.adopt(table.read_info(path))
  if not asking.table_path:
    for place in places:
      _check_budget(place, dataset.train.ids[rows], dataset.train.kind)
  built: dict[str, Bought] = {}
  counts = dict.fromkeys((one.name for one in asked), 0)

  def expert(one: Teacher, place: epath.Path) -> Expert:
    is_free = bool(asking.pruned) and one is not asked[0]

    def answers(some: np.ndarray) -> Outputs:
      found = built[one.name] = teacher.build(
        one,
        _order(asking, dataset, rows[some], plan),
        place,
        budget=len(rows),
        max_calls=None if is_free else asking.max_calls,
        max_attempts=None if is_free else asking.max_attempts,
        part_size=asking.part_size,
        ledger=None if is_free else ledger,
      )
      counts[one.name] += len(some)
      say_kind(found.table)
      ids = dataset.train.ids[rows[some]]
      return usable(found.table, ids, dataset.train.kind, plan.method.needs)

    return answers

  experts = [expert(*pair) for pair in zip(asked, places, strict=False)]
  consult = plan.method.consult or _about_all
  teachers = consult(experts, dataset.train.labels[rows])
  free = counts.pop(asked[-1].name) if asking.pruned else 0
  paid = [built[name] for name in counts if name in built]
  return {
    "teachers": teachers,
    **view_of(paid[0].table.info),
    "calls": sum(counts.values()),
    "experts": tuple(counts.items()) if asking.experts else (),
    **{
      key: sum(getattr(one, key) for one in paid)
      for key in ("paid", "repeated", "failed", "may_buy")
    },
    "pruned_calls": free,
    "path": str(path),
    "digest": _digest([one.table for one in paid]),
  }


def _check_budget(place: epath.Path, ids: np.ndarray, kind: str) -> None:
  """Refuses to go on in a table of one's own with another budget's rows."""
  if others := teacher.asked_about(place) - {*map(str, ids)}:
    raise UserError(
      f"{place} has answers about {len(others)} {kind} that are not in this"
      " budget: take the old values of the data, budget and budget_seed, or"
      f" another workdir; --config.table.path={place} keeps these answers and"
      " pays for the others, too"
    )


def _about_all(experts, labels: np.ndarray) -> tuple[Outputs, ...]:
  """Every teacher about every row."""
  return tuple(expert(np.arange(len(labels))) for expert in experts)


def _order(asking: Asking, dataset: Dataset, rows, plan: Plan) -> Order:
  return Order(
    Subject(dataset.name, "train", dataset.train, dataset.answer_names),
    rows,
    plan.method.needs,
    asking.view,
    asking.view_seed,
    asking.pad,
    asking.top_k,
  )


def _folder(one: Teacher) -> str:
  """A folder's name, the same wherever this teacher stands among others."""
  return re.sub(r"[^\w.-]+", "-", one.name)


def _digest(tables: list[Table]) -> str:
  """That of the table; of several, one of them all."""
  digests = [table.digest(one.info) for one in tables]
  if len(digests) == 1:
    return digests[0]
  return hashlib.sha256("".join(digests).encode()).hexdigest()


def usable(held: Table, ids, kind: str, needs=frozenset()) -> Outputs:
  """The rows of `ids` as logits, with the other fields in `needs`.

  Args:
    held: the table.
    ids: str[n].
    kind: what the rows are, "images" or "texts".
    needs: fields of `Outputs`.
  """
  return table.to_outputs(held.rows(ids, kind), held.kind, needs)


def say_kind(held: Table) -> None:
  """Tells what becomes of probabilities."""
  if held.kind == "probs":
    console.say("teacher answers are probabilities p: using log(max(p, 1e-8))")


def view_of(info: dict[str, Any]) -> dict[str, Any]:
  """What the teacher saw, from table.json."""
  return {key: info[key] for key in ("view", "view_seed", "view_pad")}
