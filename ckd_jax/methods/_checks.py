"""Checks the ranges of hyper-parameters; an error is one line."""

import math


def at_least(low: float, **values: float) -> None:
  """Raises ValueError for a value below `low` or one that is not finite."""
  for name, value in values.items():
    if not (math.isfinite(value) and value >= low):
      raise ValueError(f"{name} must be {low} or more, not {value!r}")


def above(low: float, **values: float) -> None:
  """Raises ValueError for a value not above `low` or one that is not finite."""
  for name, value in values.items():
    if not (math.isfinite(value) and value > low):
      raise ValueError(f"{name} must be above {low}, not {value!r}")


def share(**values: float) -> None:
  """Raises ValueError for a value that is not between 0 and 1."""
  for name, value in values.items():
    if not 0 <= value <= 1:
      raise ValueError(f"{name} must be between 0 and 1, not {value!r}")
