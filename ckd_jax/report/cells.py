"""Runs that differ in their seed alone, put into cells."""

import collections
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ckd_jax.report.runs import differing, metric_of


class Cell(NamedTuple):
  """One method at one budget, over seeds."""

  figures: list[float]  # of the test set, one per run; accuracy in percent
  calls: float  # mean teacher calls
  seconds: float  # mean training time
  metric: str = "accuracy"  # what the figures are

  @property
  def mean(self) -> float:
    return statistics.fmean(self.figures)

  @property
  def std(self) -> float | None:
    """Sample standard deviation (n - 1); None for a single run."""
    if len(self.figures) < 2:
      return None
    return statistics.stdev(self.figures)

  def __str__(self) -> str:
    form = ".2f" if self.metric == "accuracy" else ".4g"
    std = "-" if self.std is None else format(self.std, form)
    return f"{self.mean:{form}} ± {std} ({len(self.figures)})"


class Pair(NamedTuple):
  """What runs must share to stand in one table."""

  dataset: str
  teacher: str
  student: str
  metric: str = "accuracy"

  @classmethod
  def of(cls, summary: dict[str, Any]) -> "Pair":
    keys = ("dataset", "teacher", "student")
    dataset, teacher, student = (str(summary[key]) for key in keys)
    return cls(dataset, teacher, student, metric_of(summary))

  @property
  def figure(self) -> str:
    """What a table shows, with its unit."""
    return f"test {self.metric}" + ", %" * (self.metric == "accuracy")


Groups = dict[Pair, dict[str, dict[int | None, Cell]]]  # by method, by budget


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


def _cell(summary: dict[str, Any]) -> tuple[Pair, str, int | None]:
  return Pair.of(summary), name(summary), summary["budget"]


def group(summaries: Sequence[dict[str, Any]]) -> Groups:
  """Puts runs that differ in their seed only into one `Cell`.

  `label` tells variants of a method apart.
  """
  runs = collections.defaultdict(list)
  for summary in summaries:
    runs[_cell(summary)].append(summary)
  groups: Groups = {}
  for (pair, method, budget), same in sorted(runs.items(), key=_order):
    cell = Cell(
      [summary[f"test_{pair.metric}"] for summary in same],
      statistics.fmean(summary["teacher_calls"] for summary in same),
      statistics.fmean(summary["train_seconds"] for summary in same),
      pair.metric,
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
  counts = collections.Counter(
    (*_cell(summary), summary["seed"]) for summary in summaries
  )
  return [
    f"note: {method}, budget {budget}, seed {seed} of {pair.dataset} counts {n}"
    " runs; if they are variants, tell them apart by `label`"
    for (pair, method, budget, seed), n in counts.items()
    if n > 1
  ]
