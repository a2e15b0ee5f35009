"""Kinds of answers, their valid ranges, and the precision to store them in."""

from typing import Any

import numpy as np

from ckd_jax import errors
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.system import console

KINDS = ("logits", "log_probs", "probs")
_LARGEST_HALF = 65504.0


def storage_dtype(values: np.ndarray, kind: str = "logits") -> type:
  """float16 if it is precise enough, else float32.

  A student compares differences of rows, so this measures the relative error
  (root mean square) of the differences of neighbouring rows; a single row is
  measured by its spread over the classes.

  Args:
    values: float[rows, ...].
    kind: of the values; probabilities are float32.
  """
  values = np.asarray(values, np.float32)
  values = np.where(np.isfinite(values), values, 0)
  if kind == "probs" or not fits_half(values):
    return np.float32
  rounded = values.astype(np.float16).astype(np.float32)
  if len(values) > 1:
    exact, rounded = np.diff(values, axis=0), np.diff(rounded, axis=0)
  else:
    exact = values - values.mean()
    rounded = exact + (rounded - values)
  error = np.linalg.norm(rounded - exact)
  return np.float32 if error > 1e-3 * np.linalg.norm(exact) else np.float16


def fits_half(values: np.ndarray) -> bool:
  """Whether no finite value overflows in float16."""
  finite = np.where(np.isfinite(values), values, 0)
  return bool(np.abs(finite).max(initial=0) <= _LARGEST_HALF)


def warn_of_probs(name: str, remedy: str) -> None:
  """Warns that logits look like probabilities.

  Args:
    name: of the file or the teacher.
    remedy: the setting that says that they are, "--kind=probs".
  """
  console.note(f"{name}: these look like probabilities; if so, set {remedy}")


def warn_of_constants(name: str) -> None:
  """Warns that answers say nothing about the images; `name` is their source."""
  console.note(
    f"{name}: these answers are all alike, or the same for every class, and"
    " teach nothing: is this the teacher?"
  )


def first_of(values: Any) -> Any:
  """The first answer, with which others are compared."""
  if not isinstance(values, TopK):
    return values[0]
  return np.concatenate([values.log_probs[0], values.rest[0][..., None]], -1)


def are_constant(values: Any, first: np.ndarray | None = None) -> bool:
  """Whether answers are all alike, or the same for every class.

  Args:
    values: float[rows, ..., classes], or a TopK.
    first: of one row, with which they are compared; None is the first row.
  """
  if isinstance(values, TopK):
    values = np.concatenate([values.log_probs, values.rest[..., None]], -1)
  values = np.asarray(values)
  if not values.size:
    return False
  wanted = values[:1] if first is None else first[None]
  return bool((values == wanted).all() or (values == values[..., :1]).all())


def looks_like_probs(values: Any) -> bool:
  """Whether float[rows, ..., classes] may be probabilities, which sum to 1.

  Logits that look like this deserve a warning.
  """
  if isinstance(values, TopK):
    return False
  values = np.asarray(values, np.float64)
  if not values.size or not np.isfinite(values).all():
    return False
  return values.min() >= 0 and np.abs(values.sum(-1) - 1).max() < 1e-2


def validate(values: np.ndarray, kind: str, num_classes: int) -> None:
  """Refuses answers that are not of their kind.

  Args:
    values: float[rows, ..., classes].
    kind: "logits", "log_probs" or "probs".
    num_classes: number of classes of the data set, or of its vocabulary.

  Raises:
    UserError: what is wrong, without the name of the source.
  """
  if kind not in KINDS:
    raise UserError(f"unknown kind {kind!r}: {errors.nearest(kind, KINDS)}")
  if values.shape[-1] != num_classes:
    raise UserError(
      f"there are {values.shape[-1]} classes and the data set has {num_classes}"
    )
  apart = tuple(range(1, values.ndim))
  low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
  bad = np.flatnonzero((np.isnan(values) | (values == np.inf)).any(apart))
  if len(bad):
    raise UserError(
      f"{len(bad)} of {len(values)} rows hold NaN or +inf, row {bad[0]} first"
    )
  empty = np.flatnonzero((values == -np.inf).all(-1).any(apart[:-1]))
  if len(empty):
    raise UserError(
      f"{len(empty)} of {len(values)} rows rule every class out, row"
      f" {empty[0]} first"
    )
  if kind == "logits":
    return
  lowest, highest = (0, 1) if kind == "probs" else (-np.inf, 0)
  if low < lowest or high > highest + 1e-3:
    raise UserError(
      f"{kind} lie in [{lowest}, {highest}] and these in [{low:.4g},"
      f" {high:.4g}]: choose another kind"
    )
  probs = values if kind == "probs" else np.exp(values.astype(np.float64))
  sums = probs.sum(-1, dtype=np.float64).reshape(-1)
  if len(sums) and np.abs(sums - 1).max() > 1e-2:
    raise UserError(
      f"the {kind} of one row must sum to 1, and one row's probabilities sum"
      f" to {sums[np.abs(sums - 1).argmax()]:.4g}"
    )
