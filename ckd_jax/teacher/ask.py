"""Asks a teacher once per image: journals, counts, refuses call budget + 1."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from etils import epath

from ckd_jax import methods, table
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.system import files
from ckd_jax.table import Table
from ckd_jax.teacher.journal import Journal
from ckd_jax.teacher.sources import (
  Teacher,
  from_callable,
  from_model,
  from_run,
  from_torch,
  pruned,
)

__all__ = [
  "BudgetExceeded",
  "Teacher",
  "augmented",
  "build",
  "from_callable",
  "from_model",
  "from_run",
  "from_torch",
  "pruned",
]

VIEWS = ("clean", "augmented")


class BudgetExceeded(UserError):
  """A call was refused before it was made."""


class Purse:
  """What may still be asked; `pay` is called before every request."""

  def __init__(self, budget: int, spent: int):
    self.budget, self.spent = budget, spent

  def pay(self, calls: int) -> None:
    """Takes `calls` from the budget, or refuses them all."""
    if self.spent + calls > self.budget:
      raise BudgetExceeded(
        f"teacher call {self.budget + 1} was not made, the budget is"
        f" {self.budget}: raise it, or ask about fewer images"
      )
    self.spent += calls


def build(
  teacher: Teacher,
  split: Any,
  wanted_rows: Sequence[int],
  *,
  table_path: epath.PathLike,
  dataset_name: str,
  class_names: Sequence[str],
  num_classes: int,
  budget: int,
  split_name: str = "train",
  view: str = "clean",
  view_seed: int = 0,
  pad: int = 4,
  needs: frozenset[str] = frozenset({"logits"}),
  part_size: int = 512,
) -> tuple[Table, int, int]:
  """Asks about the wanted images that the table does not hold yet.

  A killed build loses no answer: what was under way is asked again and counted
  apart. Runs that share the table take turns.

  Args:
    teacher: who is asked.
    split: a `data.Split`.
    wanted_rows: int[n], rows of the split, in the order of asking.
    table_path: the table's folder.
    dataset_name: written into the table, as are the next three.
    class_names: in the data set's order.
    num_classes: length of an answer.
    budget: how many of the wanted images may be asked about at all.
    split_name: "train" or "test".
    view: "clean", or "augmented": one crop and flip per image.
    view_seed: of the augmented view.
    pad: pixels of black border of the augmented view.
    needs: fields of Outputs that the answers must have.
    part_size: images per file; at most one local part is asked again.

  Returns:
    The table; calls whose answers joined it now; requests sent twice.

  Raises:
    BudgetExceeded: more is wanted than the budget allows; what was answered
      before is kept.
    UserError: the table is another teacher's, view's or data set's, the teacher
      failed, or its answers are unusable.
  """
  if view not in VIEWS:
    raise UserError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")
  if teacher.request_size is not None and needs - {"logits"}:
    work = ", ".join(methods.working_with(frozenset({"logits"})))
    raise UserError(
      f"{teacher.name} is a black box and gives logits only, not"
      f" {', '.join(sorted(needs - {'logits'}))}: of the methods {work} work"
    )
  path = epath.Path(table_path)
  rows = {str(split.ids[row]): int(row) for row in wanted_rows}
  augment = view == "augmented"
  facts = {
    "dataset": dataset_name,
    "split": split_name,
    "fingerprint": split.fingerprint,
    "class_names": class_names,
    "teacher": teacher.name,
    "kind": teacher.kind,
    "view": view,
    "view_seed": int(view_seed) if augment else None,
    "view_pad": int(pad) if augment else None,
  }

  def look(ids: Sequence[str]) -> np.ndarray:
    images = split.images[[rows[name] for name in ids]]
    return augmented(images, ids, view_seed, pad) if augment else images

  found = _existing(path, facts, needs)
  if found is None or not set(rows) <= set(found.ids):
    if teacher.ask is None:
      raise UserError(
        f"the table {path} lacks some of the {len(rows)} images, and there is"
        " no teacher to ask"
      )
    with files.lock(path):
      return _fill(
        path,
        facts,
        teacher,
        list(rows),
        look,
        num_classes,
        budget,
        needs,
        part_size,
      )
  return found, 0, 0


def _existing(path, facts: dict, needs: frozenset[str]) -> Table | None:
  """The table as it is, if it was made for the same purpose."""
  if not table.exists(path):
    return None
  info = table.read_info(path)
  table.require(path, info, **facts)
  if not info["parts"]:
    return None
  held = table.fields(info)
  if lacking := set(needs) - held:
    work = ", ".join(methods.working_with(held))
    raise UserError(
      f"the table {path} holds {', '.join(sorted(held))}, and"
      f" {', '.join(sorted(lacking))} is needed: choose another table.path, or"
      f" of the methods {work}"
    )
  return table.read(path)


def _fill(
  path, facts, teacher, ids, look, num_classes, budget, needs, part_size
) -> tuple[Table, int, int]:
  """`build`, while holding the lock."""
  found = _existing(path, facts, needs)
  info = table.read_info(path) if table.exists(path) else None
  held = set(found.ids) if found else set()
  if found:
    needs = table.fields(info)  # every part of a table holds the same fields
  missing = [name for name in ids if name not in held]
  before = info or table.new_info(**facts, missing=[])
  promised = list(dict.fromkeys([*before["missing"], *missing]))
  if promised != before["missing"] or info is None:
    # Written before the first question, so that nobody else fills this folder.
    info = table.write_info(path, before | {"missing": promised})
  journal = Journal(path / "journal.jsonl")
  kept = sum(name in journal.answers for name in missing)
  if len(missing) > kept:
    print(
      f"asking {teacher.name}: {len(missing) - kept} of {len(ids)} images,"
      " the others are answered"
    )
  purse = Purse(budget, len(ids) - len(missing) + kept)
  calls, repeated = info["calls"], info["repeated_calls"]
  for start in range(0, len(missing), part_size):
    part = missing[start : start + part_size]
    outputs = _ask(teacher, part, look, num_classes, needs, journal, purse)
    counts = {
      "calls": info["calls"] + len(part),
      "repeated_calls": info["repeated_calls"] + journal.repeated(part),
    }
    info = table.append(path, info | counts, part, outputs)
    journal.settle(part)
  now = info["calls"] - calls, info["repeated_calls"] - repeated
  return table.read(path), *now


def _ask(
  teacher: Teacher,
  ids: list[str],
  look: Callable[[Sequence[str]], np.ndarray],
  num_classes: int,
  needs,
  journal: Journal,
  purse: Purse,
) -> Outputs:
  """The answers of one part, those that the journal kept included."""
  guard = threading.Lock()
  failed = threading.Event()
  is_black_box = teacher.request_size is not None

  def send(request: list[str]) -> Outputs:
    images = look(request)
    with guard:
      purse.pay(len(request))
      journal.ask(request)
    try:
      answer = teacher.ask(images, needs=frozenset(needs))
    except Exception:
      with guard:
        journal.fail(request)
      raise
    answer = _checked(answer, len(request), num_classes, needs, teacher)
    if is_black_box:
      with guard:
        journal.answer(request, answer.logits)
    return answer

  def send_until_one_fails(request: list[str]) -> None:
    if failed.is_set():
      return
    try:
      send(request)
    except BaseException:
      failed.set()
      raise

  if not is_black_box:
    return send(ids)
  unasked = [name for name in ids if name not in journal.answers]
  size = teacher.request_size
  requests = [unasked[i : i + size] for i in range(0, len(unasked), size)]
  with ThreadPoolExecutor(teacher.concurrency) as pool:
    try:
      list(pool.map(send_until_one_fails, requests))
    except BaseException:  # of which a Ctrl-C reaches no thread but this one
      failed.set()
      raise
  return Outputs(np.stack([journal.answers[name] for name in ids]))


def _checked(answer, count, num_classes, needs, teacher) -> Outputs:
  """Only answers that a student can use are stored."""
  try:
    logits = np.asarray(answer.logits, np.float32)
  except (TypeError, ValueError) as error:
    raise UserError(
      f"the teacher {teacher.name} did not answer with numbers: {error}"
    ) from error
  if logits.shape != (count, num_classes):
    raise UserError(
      f"the teacher {teacher.name} answered with shape {logits.shape}, not"
      f" ({count}, {num_classes}): one row per image, one column per class"
    )
  require(teacher.name, answer, needs)
  try:
    table.validate(logits, teacher.kind, num_classes)
  except UserError as error:
    raise UserError(f"the teacher {teacher.name}: {error}") from error
  stored = {field: getattr(answer, field) for field in needs}
  return Outputs(**stored | {"logits": logits})


def require(name: str, answer: Outputs, needs) -> None:
  """Refuses answers, or their shapes, that lack a field."""
  given = {
    field
    for field in Outputs._fields
    if jax.tree.leaves(getattr(answer, field))
  }
  if lacking := sorted(set(needs) - given):
    work = ", ".join(methods.working_with(frozenset(given)))
    raise UserError(
      f"the teacher {name} gives no {' and no '.join(lacking)}: choose another"
      f" teacher, or of the methods {work}"
    )


def augmented(
  images: np.ndarray, ids: Sequence[str], seed: int, pad: int
) -> np.ndarray:
  """One random crop and flip per image, the same for the same seed and id.

  Args:
    images: uint8[n, h, w, c].
    ids: str[n].
    seed: of the view.
    pad: pixels of black border from which the crop is taken.

  Returns:
    uint8[n, h, w, c].
  """
  height, width = images.shape[1:3]
  border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
  result = np.empty_like(images)
  for row, (image, name) in enumerate(
    zip(np.pad(images, border), ids, strict=True)
  ):
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    draw = np.random.default_rng(int.from_bytes(digest))
    top, left = draw.integers(2 * pad + 1, size=2)
    image = image[top : top + height, left : left + width]
    result[row] = image[:, ::-1] if draw.random() < 0.5 else image
  return result
