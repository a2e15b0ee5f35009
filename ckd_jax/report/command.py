"""The command `ckd-jax report RUN_DIR ...`."""

import base64
import html

from etils import epath

from ckd_jax.config import Parser
from ckd_jax.errors import UserError
from ckd_jax.report.cells import Groups, group, label_unlike, repeated
from ckd_jax.report.picture import draw
from ckd_jax.report.runs import find, read
from ckd_jax.report.text import comma_separated, markdown, table
from ckd_jax.system import files

DESCRIPTION = """\
Prints methods x budgets, mean and sample standard deviation over seeds, and
draws accuracy, or what else chose the weights, against teacher calls. Runs
whose configs differ in more than their seed are labelled with the keys that
differ.

  ckd-jax report runs/*
  ckd-jax report runs/sweep --out=results.html

(The same: python -m ckd_jax.report.)
"""


def main(argv: list[str]) -> None:
  """Prints tables of runs, and writes a picture or a report."""
  parser = Parser("ckd-jax report", DESCRIPTION)
  parser.add_argument(
    "runs",
    nargs="+",
    metavar="RUN_DIR",
    help="the folder of a run, or a folder of such folders",
  )
  parser.add_argument(
    "--out",
    metavar="FILE",
    help="a .png, .html, .md or .csv; default: accuracy_vs_calls.png beside "
    "the runs",
  )
  flags = parser.parse_args(argv)
  finished, unfinished = find(flags.runs)
  out = epath.Path(flags.out or finished[0].parent / "accuracy_vs_calls.png")
  if out.suffix not in _WRITERS:
    raise UserError(
      f"--out={flags.out}: reports are written as {', '.join(_WRITERS)}"
    )
  summaries = label_unlike([read(run) for run in finished])
  groups = group(summaries)
  print(table(groups), end="\n\n")
  for line in repeated(summaries):
    print(line)
  if unfinished:
    print("unfinished:", ", ".join(run.name for run in unfinished))
  files.write(out, _WRITERS[out.suffix](groups))
  print("plot:" if out.suffix == ".png" else "report:", out)


def _html(groups: Groups) -> bytes:
  """One page that needs no other file."""
  picture = base64.b64encode(draw(groups)).decode()
  return (
    "<!doctype html><meta charset=utf-8><title>ckd_jax report</title>\n"
    f"<pre>{html.escape(table(groups))}</pre>\n"
    f'<img alt="accuracy by calls" src="data:image/png;base64,{picture}">\n'
  ).encode()


_WRITERS = {
  ".png": draw,
  ".html": _html,
  ".md": lambda groups: markdown(groups).encode(),
  ".csv": lambda groups: comma_separated(groups).encode(),
}
