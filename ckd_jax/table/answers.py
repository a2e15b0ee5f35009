"""A teacher's answers as given, and as logits to learn from."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ckd_jax.methods import Outputs, TopK

_FLOOR = 1e-8  # of a probability, before its logarithm


class Answers(NamedTuple):
  """A teacher's answers; every array begins with [rows].

  Attributes:
    values: [rows, classes], of the table's kind: logits, log-probabilities or
      probabilities; of a language model [rows, length, vocabulary], or a TopK.
    embedding: [rows, dim], where the teacher gives one.
    maps: of [rows, h, w, c].
    preactivations: of [rows, h, w, c].
  """

  values: Any
  embedding: np.ndarray | None = None
  maps: tuple = ()
  preactivations: tuple = ()


def from_outputs(outputs: Outputs, fields: Iterable[str]) -> Answers:
  """A network's outputs as answers.

  Args:
    outputs: NumPy arrays [rows, ...].
    fields: of `Outputs` to keep; the logits are always kept.
  """
  kept = set(fields) - {"logits"}
  values: Any = outputs.logits
  return Answers(values, **{field: getattr(outputs, field) for field in kept})


def to_outputs(answers: Answers, kind: str, fields: Iterable[str]) -> Outputs:
  """Answers as logits, with the other fields that a method compares.

  Args:
    answers: arrays [rows, ...], as stored.
    kind: of their values; probabilities become log(max(p, 1e-8)), logits and
      log-probabilities are unchanged.
    fields: of `Outputs` to keep; the logits are always kept.
  """
  values = answers.values
  if kind == "probs" and not isinstance(values, TopK):
    values = np.log(np.maximum(values.astype(np.float32), _FLOOR))
  logits: Any = values
  kept = set(fields) - {"logits"}
  return Outputs(logits, **{field: getattr(answers, field) for field in kept})


def given(answers: Answers) -> frozenset[str]:
  """Lists the fields of `Outputs` that these answers fill."""
  others = {
    field
    for field in ("embedding", "maps", "preactivations")
    if getattr(answers, field) is not None and len(getattr(answers, field))
  }
  return frozenset({"logits"} | others)
