"""What a run remembers beside its weights; a checkpoint carries it as JSON."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Score:
  """The best weights found in one mode of judging, and the last ones.

  Attributes:
    val: the best validation accuracy, in percent; None without validation.
    test: test accuracy of these weights, in percent; None before the end.
    step: after how many steps they were found.
    last_test: test accuracy of the last weights, in percent.
  """

  val: float | None = None
  test: float | None = None
  step: int | None = None
  last_test: float | None = None


@dataclasses.dataclass
class Record:
  """Accuracies, the plateau's state, and what the time went into.

  Attributes:
    modes: by the mode of `ckd_jax.offset` in which the student is judged.
    since_best: validations since the reported mode was at its best.
    level: how often a plateau lowered the learning rate.
    train_seconds: in training steps, compilation included.
    evaluation_seconds: in validations and checkpoints.
    processor_seconds: of all cores, in both.
    timed_steps: steps in launches that were compiled before.
    timed_seconds: in these.
    origin: digests of the images and the answers that the run began with.
    steps: how many were done when the run ended.
  """

  modes: dict[str, Score]
  since_best: int = 0
  level: int = 0
  train_seconds: float = 0.0
  evaluation_seconds: float = 0.0
  processor_seconds: float = 0.0
  timed_steps: int = 0
  timed_seconds: float = 0.0
  origin: dict[str, str] = dataclasses.field(default_factory=dict)
  steps: int = 0

  def to_json(self) -> dict[str, Any]:
    """Plain values, for the notes of a checkpoint."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, notes: dict[str, Any]) -> "Record":
    """The record that `to_json` wrote; fields that it lacks are as at first."""
    known = {field.name for field in dataclasses.fields(cls)}
    kept = {key: value for key, value in notes.items() if key in known}
    modes = {mode: Score(**score) for mode, score in notes["modes"].items()}
    return cls(**kept | {"modes": modes})
