"""The numbers of a run beside its weights, saved as JSON in checkpoints."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Score:
  """Accuracies of the best and of the last weights in one mode.

  Attributes:
    val: the best validation accuracy, in percent; None without validation.
    test: test accuracy of these weights, in percent; None before the end.
    step: number of the steps after which they were found.
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
    modes: one Score for each mode of `ckd_jax.offset`.
    since_best: validations since the best one of the reported mode.
    level: how often a plateau lowered the learning rate.
    train_seconds: wall time of training steps, compilation included.
    evaluation_seconds: wall time of validations and checkpoints.
    processor_seconds: CPU time of all cores, for both.
    timed_steps: steps in launches without compilation.
    timed_seconds: wall time of these steps.
    origin: digests of the images and the answers that the run began with.
    steps: number of training steps when the run ended.
    devices: number and kind of those on which it began; "" where not known.
    skipped: steps whose update was not applied, their numbers not finite.
    rollbacks: how often the run went back to a checkpoint because of such
      numbers; each time it goes on with another order of rows.
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
  devices: str = ""
  skipped: int = 0
  rollbacks: int = 0

  def to_json(self) -> dict[str, Any]:
    """Plain values, for the notes of a checkpoint."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, notes: dict[str, Any]) -> "Record":
    """The record that `to_json` wrote; missing fields have their defaults."""
    known = {field.name for field in dataclasses.fields(cls)}
    kept = {key: value for key, value in notes.items() if key in known}
    modes = {mode: Score(**score) for mode, score in notes["modes"].items()}
    return cls(**kept | {"modes": modes})
