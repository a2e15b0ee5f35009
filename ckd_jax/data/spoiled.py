"""A training split with unequal classes and wrong labels, as a config says."""

import hashlib
from typing import NamedTuple

import numpy as np

from ckd_jax.data.corruption import (
  imbalanced_counts,
  imbalanced_rows,
  noisy_labels,
)
from ckd_jax.data.split import Split
from ckd_jax.errors import UserError


class Imbalance(NamedTuple):
  """How unequal classes become; as in `corruption.imbalanced_counts`.

  Attributes:
    largest: rows of the first class; 0 keeps every row.
    smallest: rows of the last class.
    exponent: how fast classes shrink between the two.
  """

  largest: int = 0
  smallest: int = 0
  exponent: float = 1.0


class LabelNoise(NamedTuple):
  """Which labels are drawn anew; as in `corruption.noisy_labels`.

  Attributes:
    rate: share of the labels; 0 keeps every label.
    kind: "uniform", "symmetric" or "pairflip".
    seed: of what is drawn.
  """

  rate: float = 0.0
  kind: str = "uniform"
  seed: int = 0


def spoil(
  split: Split, num_classes: int, imbalance: Imbalance, noise: LabelNoise
) -> Split:
  """Leaves rows out, then draws labels of the others anew.

  Args:
    split: of training rows, each of one class.
    num_classes: number of classes.
    imbalance: which rows are kept.
    noise: which labels change.

  Returns:
    Another split with a fingerprint of its own; the same one where nothing is
    asked for. Inputs, ids and questions of a row stay.

  Raises:
    UserError: a number is out of range, or rows have no class.
  """
  if not (imbalance.largest or noise.rate):
    return split
  if split.labels.ndim > 1:
    raise UserError(
      "dataset.imbalance and dataset.label_noise are about classes, and a"
      " language model has none: leave them out"
    )
  rows = np.arange(len(split.labels))
  if imbalance.largest:
    counts = imbalanced_counts(num_classes, **imbalance._asdict())
    rows = imbalanced_rows(split.labels, counts)
  kept = split.part(rows)
  labels = noisy_labels(kept.labels, num_classes=num_classes, **noise._asdict())
  # Of what was done to the split: pixels in files need not be read again.
  digest = hashlib.sha256(split.fingerprint.encode())
  digest.update(rows.astype("<i8").tobytes() + labels.astype("<i4").tobytes())
  return kept._replace(labels=labels, fingerprint=digest.hexdigest())
