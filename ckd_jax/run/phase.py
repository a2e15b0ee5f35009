"""A stage of a method, compiled for one run."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ckd_jax.methods import Stage
from ckd_jax.step import State, Step


class Phase(NamedTuple):
  """A stage of a method, compiled for one run.

  Attributes:
    stage: its loss, length and learning rate.
    launch: (times) -> a jitted Step of so many steps of this stage.
    steps: number of its training steps.
    begin: the state before its first step; of later stages only the structure
      counts.
    trainable: tree of bools shaped as `State.params`, true for what it trains.
  """

  stage: Stage
  launch: Callable[[int], Step]
  steps: int
  begin: State
  trainable: Any
