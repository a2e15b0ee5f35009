"""Runs that differ in their seed alone, put into cells."""

import collections
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ckd_jax.report.runs import differing


class Cell(NamedTuple):
  """One method at one budget, over seeds."""

  accuracies: list[float]  # test, percent, one per run
  calls: float  # mean teacher calls
  seconds: float  # mean training time

  @property
  def mean(self) -> float:
    return statistics.fmean(self.accuracies)

  @property
  def std(self) -> float | None:
    """Sample standard deviation (n - 1); None for a single run."""
    if len(self.accuracies) < 2:
      return None
    return statistics.stdev(self.accuracies)

  def __str__(self) -> str:
    std = "-" if self.std is None else f"{self.std:.2f}"
    return f"{self.mean:.2f} ± {std} ({len(self.accuracies)})"


# {(dataset, teacher, student): {method: {budget: Cell}}}
Groups = dict[tuple[str, str, str], dict[str, dict[int | None, Cell]]]


def label_unlike(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Labels runs of different configs that one cell would average.

  Returns:
    The summaries; those that share a cell with one of another config have the
    differing keys, with their values, added to their `label`.
  """
  cells = collections.defaultdict(list)
  for summary in summaries:
    cells[_cell(summary)].append(summary)
  labelled = []
  for summary in summaries:
    keys = differing(cells[_cell(summary)])
    values = [f"{key}={summary['config'].get(key)}" for key in keys]
    label = " ".join([str(summary.get("label") or ""), *values]).strip()
    labelled.append(summary | {"label": label})
  return labelled


def _cell(summary: dict[str, Any]) -> tuple:
  pair = tuple(str(summary[k]) for k in ("dataset", "teacher", "student"))
  return pair, name(summary), summary["budget"]


def group(summaries: Sequence[dict[str, Any]]) -> Groups:
  """Puts runs that differ in their seed only into one `Cell`.

  `label` tells variants of a method apart.
  """
  runs = collections.defaultdict(list)
  for summary in summaries:
    pair = tuple(str(summary[k]) for k in ("dataset", "teacher", "student"))
    runs[pair, name(summary), summary["budget"]].append(summary)
  groups: Groups = {}
  for (pair, method, budget), same in sorted(runs.items(), key=_order):
    cell = Cell(
      [summary["test_accuracy"] for summary in same],
      statistics.fmean(summary["teacher_calls"] for summary in same),
      statistics.fmean(summary["train_seconds"] for summary in same),
    )
    groups.setdefault(pair, {}).setdefault(method, {})[budget] = cell
  return groups


def name(summary: dict[str, Any]) -> str:
  """The method and what `label` says of its variant."""
  method, label = summary["method"], str(summary.get("label") or "")
  return label if label.startswith(method) else f"{method} {label}".strip()


def _order(item):
  (pair, method, budget), _ = item
  return pair, method, budget is None, budget or 0  # no budget: all images


def repeated(summaries: Sequence[dict[str, Any]]) -> list[str]:
  """One note for each cell that averages a seed twice."""
  keys = ("dataset", "teacher", "student", "budget", "seed")
  counts = collections.Counter(
    (name(summary), *(summary[key] for key in keys)) for summary in summaries
  )
  return [
    f"note: {method}, budget {budget}, seed {seed} of {dataset} counts {n} "
    "runs; if they are variants, tell them apart by `label`"
    for (method, dataset, _, _, budget, seed), n in counts.items()
    if n > 1
  ]
