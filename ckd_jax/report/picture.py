"""Figures of the test set against teacher calls, as a picture."""

import io

from ckd_jax.report.cells import Groups
from ckd_jax.report.text import budgets_of
from ckd_jax.system import files


def plot(groups: Groups, path) -> None:
  """Writes `draw`'s picture into a .png file."""
  files.write(path, draw(groups))


def draw(groups: Groups) -> bytes:
  """Draws the test set's figure against teacher calls, one panel per pair.

  A method without a teacher is drawn dashed, at the calls that the others need
  for the same budget: equal labels, with and without a teacher.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4 * len(groups), 4.6), layout="constrained")
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, len(groups), squeeze=False)[0]
  for axes, (pair, methods) in zip(panels, groups.items(), strict=True):
    at_budget = {
      budget: max(c[budget].calls for c in methods.values() if budget in c)
      for budget in budgets_of(methods)
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
    title = f"{pair.dataset}: {pair.teacher} → {pair.student}"
    axes.set_title(title, fontsize=11)
    unit = " (%)" if pair.metric == "accuracy" else ""
    axes.set(xlabel="teacher calls", ylabel=f"test {pair.metric}{unit}")
    used = [calls for calls in at_budget.values() if calls]
    if used and max(used) >= 8 * min(used):
      axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
  picture = io.BytesIO()
  figure.savefig(picture, format="png", dpi=150)
  return picture.getvalue()
