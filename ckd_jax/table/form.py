"""What one answer looks like: a row of logits, or one for every position."""

from typing import Any, NamedTuple

import numpy as np

from ckd_jax.errors import UserError
from ckd_jax.methods import TopK

_AT_ONCE = 2**22  # numbers that are sorted at once


class Form(NamedTuple):
  """The shape of the answer about one row.

  Attributes:
    classes: length of the logits; of a language model, the vocabulary.
    positions: of a language model, tokens of a row; else None.
    top_k: how many of the most probable tokens are kept; 0 is all logits.
  """

  classes: int
  positions: int | None = None
  top_k: int = 0

  @classmethod
  def of(cls, info: dict[str, Any]) -> "Form":
    """The form of a table's answers, by its table.json."""
    classes, top_k = len(info["class_names"]), info.get("top_k") or 0
    return cls(classes, info.get("positions"), top_k)

  def facts(self) -> dict[str, Any]:
    """Entries of table.json; None is left out there."""
    return {"positions": self.positions, "top_k": self.top_k or None}

  @property
  def lead(self) -> tuple[int, ...]:
    """What stands before the classes in the shape of an answer."""
    return () if self.positions is None else (self.positions,)

  @property
  def width(self) -> int:
    """Numbers in an answer as a flat row."""
    each = 2 * self.top_k + 1 if self.top_k else self.classes
    return each * (self.positions or 1)

  def shapes(self, rows: int) -> Any:
    """Shape of so many answers; a TopK of shapes where some are kept."""
    lead = (rows, *self.lead)
    if not self.top_k:
      return (*lead, self.classes)
    return TopK((*lead, self.top_k), (*lead, self.top_k), lead)

  def kept(self, values: Any, kind: str) -> Any:
    """Answers in this form: the most probable ones of full answers.

    Args:
      values: float32[rows, ..., classes], valid; or a TopK, unchanged.
      kind: of the values.
    """
    if not self.top_k or isinstance(values, TopK):
      return values
    return top(values, kind, self.top_k)

  def pack(self, values: Any) -> np.ndarray:
    """Answers of this form as float32[rows, width]."""
    if isinstance(values, TopK):
      parts = values.log_probs, values.ids, values.rest[..., None]
      values = np.concatenate(parts, axis=-1, dtype=np.float32)
    return np.asarray(values, np.float32).reshape(len(values), self.width)

  def unpack(self, flat: np.ndarray) -> Any:
    """The inverse of `pack`."""
    if not self.top_k:
      return flat.reshape(self.shapes(len(flat)))
    k = self.top_k
    values = flat.reshape(len(flat), *self.lead, 2 * k + 1)
    ids = values[..., k:-1].astype(np.int32)
    return TopK(ids, values[..., :k], values[..., -1])

  def check_kept(self, values: TopK) -> None:
    """Refuses answers about the most probable tokens that make no sense.

    Raises:
      UserError: what is wrong, without the name of the source.
    """
    ids, log_probs, rest = values
    one, every = "token", "the vocabulary"
    if self.positions is None:  # of pairs of a query and a document
      one, every = "document", "the data set"
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= self.classes:
      wrong = ids[(ids < 0) | (ids >= self.classes)].flat[0]
      raise UserError(
        f"a {one} id is {wrong}, and those of {every} are 0 to"
        f" {self.classes - 1}"
      )
    if (np.diff(np.sort(ids, axis=-1), axis=-1) == 0).any():
      raise UserError(f"a {one} occurs twice among the most probable ones")
    with np.errstate(over="ignore"):
      total = np.exp(log_probs.astype(np.float64)).sum(-1) + rest
    # The comparison is false for NaN.
    if not (np.abs(total - 1) <= 1e-2).all() or rest.min(initial=0) < 0:
      raise UserError(
        f"the probabilities of the most probable {one}s and of the rest must"
        " sum to 1: give natural logarithms, and the rest's probability"
      )


def top(values: np.ndarray, kind: str, k: int) -> TopK:
  """The k most probable classes of full answers.

  Args:
    values: float32[..., classes].
    kind: "logits", "log_probs" or "probs".
    k: how many, at most as many as there are classes.

  Returns:
    The most probable first, equal ones by their number; float32.
  """
  values = np.asarray(values)
  if len(values) > 1 and values.size > _AT_ONCE:
    pieces = [top(values[row : row + 1], kind, k) for row in range(len(values))]
    return TopK(*map(np.concatenate, zip(*pieces, strict=True)))
  values = values.astype(np.float64)
  if kind == "probs":
    probs = values
  else:
    probs = np.exp(values - values.max(-1, keepdims=True))
  probs = probs / probs.sum(-1, keepdims=True)
  order = np.argsort(-probs, axis=-1, kind="stable")
  sorted_ = np.take_along_axis(probs, order, -1)
  with np.errstate(divide="ignore"):  # a class ruled out is -inf
    log_probs = np.log(sorted_[..., :k]).astype(np.float32)
  rest = sorted_[..., k:].sum(-1).astype(np.float32)
  return TopK(order[..., :k].astype(np.int32), log_probs, rest)


def as_numbers(values: Any) -> Any:
  """Answers as float32, and the ids of a TopK as int32.

  Raises:
    TypeError, ValueError: they are no numbers.
  """
  if isinstance(values, TopK):
    floats = (_cast(part, np.float32) for part in values[1:])
    return TopK(_cast(values.ids, np.int32), *floats)
  values = np.asarray(values)
  if values.dtype.kind == "c":
    raise TypeError("complex ones have no order")
  return _cast(values, np.float32)


def _cast(values: Any, dtype: type) -> np.ndarray:
  # What does not fit is refused for what it became: infinite, or no id.
  with np.errstate(over="ignore", invalid="ignore"):
    return np.asarray(values).astype(dtype)
