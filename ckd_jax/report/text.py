"""Tables of a report: aligned text, Markdown, CSV."""

import csv
import io
from collections.abc import Iterator

from ckd_jax.report.cells import Cell, Groups, Pair

_OVER_RUNS = "(mean ± std over runs (n))"


def table(groups: Groups) -> str:
  """Per data set and pair: methods down, budgets across."""
  blocks = []
  for pair, methods in groups.items():
    budgets = budgets_of(methods)
    head = ["method", *("all" if b is None else f"{b:,}" for b in budgets)]
    for title, show in (
      (f"{pair.figure} {_OVER_RUNS}", str),
      ("teacher calls / train seconds", _cost),
    ):
      rows = [
        [method, *(show(cells[b]) if b in cells else "" for b in budgets)]
        for method, cells in methods.items()
      ]
      heading = f"{_named(pair)}, {title}, by budget"
      blocks.append("\n".join([heading, *_align([head, *rows])]))
  return "\n\n".join(blocks)


def _named(pair: Pair) -> str:
  return f"{pair.dataset}: {pair.teacher} -> {pair.student}"


def budgets_of(methods) -> list[int | None]:
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


def markdown(groups: Groups) -> str:
  """The same tables in Markdown."""
  lines = []
  for pair, methods in groups.items():
    budgets = budgets_of(methods)
    head = ["method", *("all" if b is None else f"{b:,}" for b in budgets)]
    lines += [f"### {_named(pair)}", ""]
    lines += [_row(head), _row(["---"] * len(head))]
    for method, cells in methods.items():
      found = [str(cells[b]) if b in cells else "" for b in budgets]
      lines.append(_row([method, *found]))
    lines += ["", f"{pair.figure} {_OVER_RUNS}, by budget", ""]
  return "\n".join(lines)


def _row(cells: list[str]) -> str:
  return f"| {' | '.join(cells)} |"


def comma_separated(groups: Groups) -> str:
  """One line for each cell, for programs."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(
    "dataset,teacher,student,metric,method,budget,mean,std,runs,teacher_calls,"
    "train_seconds".split(",")
  )
  writer.writerows(_lines(groups))
  return text.getvalue()


def _lines(groups: Groups) -> Iterator[tuple]:
  for pair, methods in groups.items():
    for method, cells in methods.items():
      for budget, cell in cells.items():
        std = "" if cell.std is None else round(cell.std, 4)
        count = len(cell.figures)
        numbers = round(cell.mean, 4), std, count, cell.calls, cell.seconds
        yield (*pair, method, "" if budget is None else budget, *numbers)
