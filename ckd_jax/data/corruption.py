"""Spoils a training set on purpose: classes of unequal size, wrong labels.

The order is: subset, imbalance, noise, then the budget. Test data stay whole.
Both follow a known formula, so that what a method makes of them can be said.
"""

import numpy as np

from ckd_jax.errors import UserError


def imbalanced_counts(
  num_classes: int, *, largest: int, smallest: int, exponent: float
) -> np.ndarray:
  """Computes how many images each class keeps: a / (b + c^exponent), rounded.

  c counts the classes from 1; a and b are such that the first class has
  `largest` images and the last one `smallest`.

  Args:
    num_classes: number of classes.
    largest: images of the first class.
    smallest: images of the last class, at least 1.
    exponent: above 0, up to 50.

  Returns:
    int64[num_classes], never rising.

  Raises:
    UserError: a number is out of range.

  References:
    The public code of NeurAI-Lab/SSL-Prior.
  """
  if num_classes < 1:
    raise UserError(f"num_classes is {num_classes}: there is at least one")
  is_whole = _are_whole(np.asarray([largest, smallest]))
  if not (is_whole and 1 <= smallest <= largest):
    raise UserError(
      f"largest is {largest} and smallest is {smallest}: choose whole numbers"
      " with 1 <= smallest <= largest"
    )
  if not 0 < exponent <= 50:
    raise UserError(
      f"exponent is {exponent}: choose a number above 0, say 1, and up to 50"
    )
  if smallest == largest:
    return np.full(num_classes, largest)
  if num_classes == 1:
    raise UserError(
      f"one class cannot have {largest} and {smallest} images: give the same"
      " number twice"
    )
  # As in the public code, to the last digit: a half may be rounded otherwise.
  powers = np.array([c**exponent for c in range(1, num_classes + 1)], float)
  a, b = np.linalg.solve(
    np.array([[1, -largest], [1, -smallest]]),
    np.array([largest, smallest * powers[-1]]),
  )
  return np.round(a / (b + powers)).astype(np.int64)


def imbalanced_rows(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Chooses the first counts[c] rows of every class c.

  Args:
    labels: int[n], classes.
    counts: int[classes], from `imbalanced_counts`.

  Returns:
    int64[sum of counts], rising: the rows stay in order.

  Raises:
    UserError: a class has too few rows, a label no class, or a count is none.
  """
  labels, counts = _classes(labels, len(counts)), np.asarray(counts)
  if not _are_whole(counts) or (counts < 0).any():
    raise UserError(
      f"the counts are {counts.tolist()}: choose whole numbers, 0 or more"
    )
  there = np.bincount(labels, minlength=len(counts))
  short = np.flatnonzero(there < counts)
  if short.size:
    c = short[0]
    raise UserError(
      f"class {c} has {there[c]} images, but {counts[c]} are to be kept: choose"
      " a smaller `largest`"
    )
  order, begin = np.argsort(labels, kind="stable"), np.cumsum(there) - there
  first = [order[b : b + n] for b, n in zip(begin, counts, strict=True)]
  return np.sort(np.concatenate(first))


def noise_matrix(
  num_classes: int, *, rate: float, kind: str = "uniform"
) -> np.ndarray:
  """Tells how likely each label is, given the true class.

  Args:
    num_classes: number of classes.
    rate: share p of the labels that are drawn anew, 0 to 1.
    kind: "uniform", any class, the true one included, so that p (1 - 1 /
      classes) of the labels change; "symmetric", any other class; "pairflip",
      the next class, the first after the last.

  Returns:
    float64[num_classes, num_classes], a row for each true class; rows sum to 1.

  Raises:
    UserError: a number is out of range, or the kind unknown.

  References:
    The public code of NeurAI-Lab/SSL-Prior (uniform) and of Han et al., arXiv
    1804.06872 (the others).
  """
  _check(num_classes, rate, kind)
  true = np.eye(num_classes)
  if kind == "uniform":
    drawn = np.full_like(true, 1 / num_classes)
  elif kind == "symmetric":
    drawn = (1 - true) / max(num_classes - 1, 1)
  else:
    drawn = np.roll(true, 1, axis=1)
  return (1 - rate) * true + rate * drawn


def noisy_labels(
  labels: np.ndarray,
  *,
  num_classes: int,
  rate: float,
  seed: int,
  kind: str = "uniform",
) -> np.ndarray:
  """Draws labels anew by `noise_matrix`.

  With equal seeds, a higher rate spoils the same labels and more, and a longer
  array begins like a shorter one.

  Args:
    labels: int[...], classes.
    num_classes: number of classes.
    rate: share of the labels that are drawn anew, 0 to 1.
    seed: what is drawn depends on it alone, 0 or more.
    kind: as in `noise_matrix`.

  Returns:
    A new array like `labels`, which stays as it was.

  Raises:
    UserError: a number is out of range, or the kind unknown.
  """
  _check(num_classes, rate, kind)
  labels = _classes(labels, num_classes)
  if seed < 0:
    raise UserError(f"the noise's seed is {seed}: choose 0 or more")
  draws = np.random.default_rng(seed).random((*labels.shape, 2))
  is_drawn, place = draws[..., 0] < rate, draws[..., 1]
  if kind == "uniform":
    drawn = (place * num_classes).astype(int)
  elif kind == "symmetric":
    step = 1 + (place * (num_classes - 1)).astype(int)
    drawn = (labels.astype(int) + step) % num_classes
  else:
    drawn = (labels.astype(int) + 1) % num_classes
  return np.where(is_drawn, drawn, labels).astype(labels.dtype)


KINDS = ("uniform", "symmetric", "pairflip")


def _check(num_classes: int, rate: float, kind: str) -> None:
  if kind not in KINDS:
    raise UserError(f"unknown noise {kind!r}: choose one of {', '.join(KINDS)}")
  if not 0 <= rate <= 1:
    raise UserError(f"the noise's rate is {rate}: choose a number from 0 to 1")
  least = 2 if kind == "symmetric" else 1
  if num_classes < least:
    raise UserError(
      f"num_classes is {num_classes}, but {kind} noise needs {least} or more"
    )


def _are_whole(values: np.ndarray) -> bool:
  return np.issubdtype(values.dtype, np.integer)


def _classes(labels, num_classes: int) -> np.ndarray:
  """The labels as an array, each of them a class."""
  labels = np.asarray(labels)
  if not _are_whole(labels):
    raise UserError(
      f"labels of type {labels.dtype} are no classes: give integers"
    )
  wrong = labels[(labels < 0) | (labels >= num_classes)]
  if wrong.size:
    raise UserError(
      f"a label is {wrong[0]}, but the classes are 0 to {num_classes - 1}"
    )
  return labels
