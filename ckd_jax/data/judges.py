"""Judges answers about a split: named figures, of which the first decides."""

from typing import Protocol

import numpy as np

from ckd_jax.data.split import Split


class Judge(Protocol):
  """Measures answers; for every figure higher is better."""

  def __call__(self, answers: np.ndarray, split: Split, /) -> dict[str, float]:
    """Returns figures by name; the first one chooses weights.

    Args:
      answers: float[n, classes], logits about every row.
      split: the rows, with labels and ids.
    """
    ...


def accuracy(answers: np.ndarray, split: Split) -> dict[str, float]:
  """How often the largest logit is that of the class, in percent."""
  hits = answers.argmax(-1) == split.labels
  return {"accuracy": 100.0 * float(np.mean(hits))}
