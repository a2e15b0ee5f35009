"""`python -m ckd_jax.report RUN_DIR ...`: methods x budgets, and a plot.

Reads `summary.json` of each run; a RUN_DIR may also be a folder of runs. Prints
mean ± sample standard deviation over seeds, and draws accuracy against teacher
calls with the same error bars.
"""

import argparse
import collections
import io
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from etils import epath

from ckd_jax.errors import UserError, command
from ckd_jax.system import files

# What is read of a summary, and of which type it is.
_KEYS = {
  "dataset": str,
  "teacher": str,
  "student": str,
  "method": str,
  "seed": int,
  "budget": int | None,
  "test_accuracy": int | float,
  "teacher_calls": int | float,
  "train_seconds": int | float,
}


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


def find(paths: Iterable) -> tuple[list[epath.Path], list[epath.Path]]:
  """Looks for runs in folders and in their direct children.

  Returns:
    (finished, unfinished): folders with summary.json, and folders of runs that
    have config.json only.

  Raises:
    UserError: a path is no folder, or there is no finished run at all.
  """
  candidates = []
  for path in dict.fromkeys(epath.Path(path).resolve() for path in paths):
    if not path.is_dir():
      raise UserError(f"{path} is not a folder; give the folder of a run")
    children = sorted(child for child in path.iterdir() if child.is_dir())
    candidates += [path] if _is_run(path) else filter(_is_run, children)
  candidates = list(dict.fromkeys(candidates))
  finished = [run for run in candidates if (run / "summary.json").exists()]
  unfinished = [run for run in candidates if run not in finished]
  if not finished:
    hint = f" ({len(unfinished)} unfinished)" if unfinished else ""
    raise UserError(
      f"no finished run{hint}: give folders that hold summary.json, or a "
      "folder of such folders"
    )
  return finished, unfinished


def _is_run(path: epath.Path) -> bool:
  names = ("summary.json", "config.json", "metrics.jsonl")
  return any((path / name).exists() for name in names)


def read(run) -> dict[str, Any]:
  """The summary of a run.

  Raises:
    UserError: the file is not a summary.
  """
  path = epath.Path(run) / "summary.json"
  try:
    summary = json.loads(path.read_text())
    missing = [
      key
      for key, kind in _KEYS.items()
      if key not in summary or not isinstance(summary[key], kind)
    ]
  except (ValueError, TypeError) as error:
    raise UserError(
      f"{path} is not JSON: {error}; remove it and rerun"
    ) from error
  if missing:
    keys = ", ".join(missing)
    raise UserError(f"{path} lacks a usable {keys}; remove it and rerun")
  return summary


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


def table(groups: Groups) -> str:
  """Per data set and pair: methods down, budgets across."""
  blocks = []
  for (dataset, teacher, student), methods in groups.items():
    budgets = _budgets(methods)
    head = ["method", *("all" if b is None else f"{b:,}" for b in budgets)]
    for title, show in (
      ("test accuracy, % (mean ± std over runs (n))", str),
      ("teacher calls / train seconds", _cost),
    ):
      rows = [
        [method, *(show(cells[b]) if b in cells else "" for b in budgets)]
        for method, cells in methods.items()
      ]
      heading = f"{dataset}: {teacher} -> {student}, {title}, by budget"
      blocks.append("\n".join([heading, *_align([head, *rows])]))
  return "\n\n".join(blocks)


def _budgets(methods) -> list[int | None]:
  """In the order in which `group` sorted them, over all methods."""
  budgets = {budget for cells in methods.values() for budget in cells}
  return sorted(budgets, key=lambda budget: (budget is None, budget or 0))


def _cost(cell: Cell) -> str:
  return f"{cell.calls:,.0f} / {cell.seconds:,.0f} s"


def _align(rows: list[list[str]]) -> list[str]:
  """The first column to the left, the others to the right."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for first, *others in rows:
    cells = [first.ljust(widths[0])]
    cells += [o.rjust(w) for o, w in zip(others, widths[1:], strict=True)]
    lines.append("  " + "   ".join(cells).rstrip())
  return lines


def plot(groups: Groups, path) -> None:
  """Draws test accuracy against teacher calls, one panel per pair.

  A method that asks no teacher is drawn, dashed, where the others' calls for
  the same budget are: equal labels, with and without a teacher.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4 * len(groups), 4.6), layout="constrained")
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, len(groups), squeeze=False)[0]
  for axes, (pair, methods) in zip(panels, groups.items(), strict=True):
    at_budget = {
      budget: max(c[budget].calls for c in methods.values() if budget in c)
      for budget in _budgets(methods)
    }
    for number, (method, cells) in enumerate(methods.items()):
      asks = any(cell.calls for cell in cells.values())
      axes.errorbar(
        [c.calls if asks else at_budget[b] or b or 0 for b, c in cells.items()],
        [cell.mean for cell in cells.values()],
        yerr=[cell.std or 0 for cell in cells.values()],
        label=method if asks else f"{method} (no teacher)",
        color=f"C{number % 10}",
        marker="os^Dv"[number % 5],
        ls="-" if asks else "--",
        ms=4.5,
        lw=1.4,
        elinewidth=1,
        capsize=3,
      )
    dataset, teacher, student = pair
    axes.set_title(f"{dataset}: {teacher} → {student}", fontsize=11)
    axes.set(xlabel="teacher calls", ylabel="test accuracy (%)")
    used = [calls for calls in at_budget.values() if calls]
    if used and max(used) >= 8 * min(used):
      axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=150)
  files.write(path, picture.getvalue())


def repeated(summaries: Sequence[dict[str, Any]]) -> list[str]:
  """Says which cells hold one seed twice: they average unlike runs."""
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


def main(argv: list[str]) -> None:
  parser = argparse.ArgumentParser("ckd_jax.report", description=__doc__)
  parser.add_argument("runs", nargs="+", metavar="RUN_DIR")
  parser.add_argument("--out", metavar="FILE.png")
  parser.error = refuse
  flags = parser.parse_args(argv)
  finished, unfinished = find(flags.runs)
  summaries = [read(run) for run in finished]
  groups = group(summaries)
  print(table(groups), end="\n\n")
  for line in repeated(summaries):
    print(line)
  if unfinished:
    print("unfinished:", ", ".join(run.name for run in unfinished))
  out = flags.out or finished[0].parent / "accuracy_vs_calls.png"
  plot(groups, out)
  print("plot:", out)


def refuse(message: str) -> None:
  raise UserError(f"{message}; --help shows the usage")


if __name__ == "__main__":
  sys.exit(command(main, sys.argv[1:]))
