"""When a run is evaluated, saved and logged."""

from typing import NamedTuple


class Intervals(NamedTuple):
  """Numbers of training steps.

  Attributes:
    steps: in the whole run.
    evaluate: from one evaluation to the next.
    save: from one checkpoint to the next.
    log: from one line of training metrics to the next.
  """

  steps: int
  evaluate: int
  save: int
  log: int

  def is_eval_step(self, step: int) -> bool:
    """Whether the run is evaluated after this step."""
    return step % self.evaluate == 0 or step == self.steps

  def is_saved(self, step: int) -> bool:
    """Whether a checkpoint is written after this step."""
    return step % self.save == 0

  def is_logged(self, step: int) -> bool:
    """Whether the step's training metrics are written."""
    # A loss that is not a number must not reach a checkpoint.
    return (
      step % self.log == 0 or self.is_eval_step(step) or self.is_saved(step)
    )

  def stop(self, step: int) -> int:
    """The next step after which the run is evaluated or saved."""
    coming = [step - step % n + n for n in (self.evaluate, self.save)]
    return min(*coming, self.steps)


class Plateau(NamedTuple):
  """When the learning rate falls, and by how much.

  Attributes:
    patience: evaluations without a better accuracy before it falls.
    levels: how often it falls before the run ends.
    factor: by which it is multiplied each time.
  """

  patience: int
  levels: int
  factor: float
