"""What finished runs show together: tables and a picture.

python -m ckd_jax.report RUN_DIR ...
"""

from ckd_jax.report.cells import (
  Cell,
  Groups,
  Pair,
  group,
  label_unlike,
  repeated,
)
from ckd_jax.report.command import main
from ckd_jax.report.picture import draw, plot
from ckd_jax.report.runs import differing, find, read
from ckd_jax.report.text import comma_separated, markdown, table

__all__ = [
  "Cell",
  "Groups",
  "Pair",
  "comma_separated",
  "differing",
  "draw",
  "find",
  "group",
  "label_unlike",
  "main",
  "markdown",
  "plot",
  "read",
  "repeated",
  "table",
]
