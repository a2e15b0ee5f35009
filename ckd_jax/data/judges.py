"""Judges answers about a split: named figures, of which the first decides."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ckd_jax.data.split import Split
from ckd_jax.errors import UserError


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


def matthews(answers: np.ndarray, split: Split) -> dict[str, float]:
  """Matthews correlation of classes and answers, in percent; and accuracy.

  0 where all answers, or all labels, are one class. Of more than two classes
  it is Gorodkin's R_K (Comput. Biol. Chem. 28, 2004).
  """
  classes = np.eye(answers.shape[-1])
  told, right = classes[answers.argmax(-1)], classes[split.labels]
  told, right = told - told.mean(0), right - right.mean(0)
  scale = np.sqrt(np.sum(told**2) * np.sum(right**2))
  value = np.sum(told * right) / scale if scale else 0.0
  return {"matthews": 100.0 * float(value), **accuracy(answers, split)}


def likelihood(answers: np.ndarray, split: Split) -> dict[str, float]:
  """Log-likelihood of the next tokens, in nats a token; and exact matches.

  A row matches exactly, in percent, if every counted token has the largest
  logit: then greedy decoding would have written it. Of a text that was cut that
  is what is left; rows without a counted token are left out.

  Args:
    answers: float[n, length, vocabulary].
    split: labels int32[n, length], -1 where none is counted.
  """
  counted = split.labels >= 0
  asked = counted.any(-1)
  matches = ((answers.argmax(-1) == split.labels) | ~counted).all(-1)[asked]
  # Row by row: a large vocabulary's in float64 would be twice the answers.
  rows = zip(answers, split.labels, counted, strict=True)
  nats = np.concatenate(
    [np.zeros(0), *(_nats(row[c], labels[c]) for row, labels, c in rows)]
  )
  return {
    "minus_nats_per_token": -float(nats.sum() / max(len(nats), 1)),
    "exact_match": 100.0 * float(matches.sum() / max(len(matches), 1)),
  }


def _nats(answers: np.ndarray, following: np.ndarray) -> np.ndarray:
  """float64[n], of int[n] tokens under logits [n, vocabulary]."""
  logits = answers.astype(np.float64)
  top = logits.max(-1, keepdims=True, initial=-np.inf)
  log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(-1))
  return log_sum - logits[np.arange(len(following)), following]


def ranking(
  judgements: Mapping[str, Mapping[str, float]],
  documents: Sequence[str],
  *,
  graded: bool = False,
  depth: int = 100,
) -> Judge:
  """Makes the judge of a retrieval set, whose classes are its documents.

  Args:
    judgements: {query: {document: grade}}; grades above 0 are relevant.
    documents: ids, in the order of the classes.
    graded: whether a gain is the grade; else it is 1.
    depth: how many documents count for the recall.

  Returns:
    A judge of float[queries, documents]: ndcg@10, mrr@10 and the recall, means
    over the queries that have a relevant document. A split of which no row is
    judged, as training queries are not, is judged by its labels alone.

  Raises:
    UserError: a judgement is of an unknown document.
  """
  column = {document: place for place, document in enumerate(documents)}
  for query, grades in judgements.items():
    for document in grades.keys() - column.keys():
      raise UserError(
        f"the judgements of query {query} name the document {document}, which"
        " is not there"
      )

  def gains(split: Split) -> np.ndarray:
    """float[n, documents]."""
    table = np.zeros((len(split.ids), len(column)), np.float32)
    known = [str(id_) in judgements for id_ in split.ids]
    if not any(known):
      table[np.arange(len(table)), split.labels] = 1.0
      return table
    for row, id_ in enumerate(split.ids):
      for document, grade in judgements.get(str(id_), {}).items():
        gain = max(grade, 0.0)
        table[row, column[document]] = gain if graded else float(gain > 0)
    return table

  def judge(answers: np.ndarray, split: Split) -> dict[str, float]:
    relevant = gains(split)
    asked = relevant.any(1)
    return _ranked(answers[asked], relevant[asked], depth)

  return judge


def _ranked(scores, gains, depth: int) -> dict[str, float]:
  """Figures of float[n, documents]; equal scores rank by document."""
  order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
  found = np.take_along_axis(gains, order, 1)
  best = -np.sort(-gains, axis=1)
  discount = 1 / np.log2(np.arange(2, 12)[: gains.shape[1]] + 0.0)
  ndcg = (found[:, :10] @ discount) / (best[:, :10] @ discount)
  hits = found > 0
  first = hits[:, :10].argmax(1)  # 0, too, where there is none
  reciprocal = np.where(hits[:, :10].any(1), 1 / (first + 1), 0.0)
  recall = hits[:, :depth].sum(1) / hits.sum(1)
  figures = (("ndcg@10", ndcg), ("mrr@10", reciprocal))
  return {
    name: float(values.mean()) if len(values) else 0.0
    for name, values in (*figures, (f"recall@{depth}", recall))
  }
