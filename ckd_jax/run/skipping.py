"""Steps whose numbers were not finite, and that were not applied."""

from collections.abc import Mapping
from typing import Any

from ckd_jax.run.logger import Diverged
from ckd_jax.step import SKIPPED

_IN_A_ROW = 100  # a run that skips so many steps learns nothing


class Skips:
  """Ends a stretch of training of which no step is applied any more.

  Args:
    steps: of the stretch; a short one that skips all of them learns nothing.
  """

  def __init__(self, steps: int) -> None:
    self._in_a_row, self._most = 0, min(steps, _IN_A_ROW)

  def enter(self, step: int, metrics: Mapping[str, Any]) -> int:
    """Returns 1 for a step that was skipped, else 0.

    Args:
      step: number of the steps done so far; every one of them is entered.
      metrics: of that step.

    Raises:
      Diverged: all of many steps were skipped.
    """
    skipped = int(metrics[SKIPPED])
    self._in_a_row = (self._in_a_row + 1) * skipped
    if self._in_a_row == self._most:
      raise Diverged(
        f"all of the last {self._most} steps were skipped at step {step}", step
      )
    return skipped
