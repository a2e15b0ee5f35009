"""Curriculum expert selection: the harder an image, the larger its teacher."""

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import sampling
from ckd_jax.methods import Expert, Method, Outputs
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra

SCORES = ("smallest", "mean", "count")
SELECTIONS = ("curriculum", "random", "reversed", "largest", "smallest")


def difficulty(
  answers: Sequence[np.ndarray], labels: np.ndarray, score: str
) -> np.ndarray:
  """How hard every row is: the larger, the harder.

  Args:
    answers: float[rows, classes] each, logits of the experts, smallest first;
      -inf rules a class out.
    labels: int[rows], classes.
    score: "smallest", -log p(label) of the smallest expert at temperature 1;
      "mean", the mean of it over the experts; "count", how many of them miss
      the label.

  Returns:
    float64[rows].
  """
  rows = np.arange(len(labels))
  if score == "count":
    return np.sum([np.argmax(x, axis=1) != labels for x in answers], axis=0)

  def surprise(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.log(np.sum(np.exp(shifted), axis=1))
    return total - shifted[rows, labels]

  seen = answers if score == "mean" else answers[:1]
  return np.mean([surprise(x) for x in seen], axis=0)


def strata(scores: np.ndarray, count: int) -> np.ndarray:
  """Cuts the order of the scores into equal parts, 0 the least.

  Args:
    scores: float[rows]; of equals the first row comes first.
    count: number of parts, whose sizes differ by 1 at most.

  Returns:
    int[rows], 0 to count - 1.
  """
  rank = np.empty(len(scores), np.int64)
  rank[np.argsort(scores, kind="stable")] = np.arange(len(scores))
  return count * rank // len(scores)


def consult(
  experts: Sequence[Expert],
  labels: np.ndarray,
  *,
  score: str,
  is_paced: bool,
  select: str,
) -> tuple[Outputs, ...]:
  """Asks every expert about the rows that learn from it.

  Args:
    experts: smallest first.
    labels: int[rows], classes.
    score: as in `make`.
    is_paced: whether there is a ceiling.
    select: as in `make`.

  Returns:
    What every row learns from, Outputs of [rows, classes]: once the ceiling is
    at the last expert, and before it at every smaller one, down to the first.
  """
  everything = np.arange(len(labels))
  if len(experts) == 1 or select in ("largest", "smallest"):
    chosen = experts[0 if select == "smallest" else -1]
    return (chosen(everything),)
  known: list[Any] = []  # answers about all rows
  scores = np.zeros(len(labels))  # of equals the first row comes first
  if select != "random":
    asked = experts[:1] if score == "smallest" else experts
    known = [expert(everything).logits for expert in asked]
    scores = difficulty(known, labels, score)
  stratum = strata(-scores if select == "reversed" else scores, len(experts))
  given = []
  for number, expert in enumerate(experts):
    is_its = stratum >= number if is_paced else stratum == number
    rows = np.flatnonzero(is_its)
    if number < len(known):
      given.append((rows, known[number][rows]))
    elif len(rows):  # there may be fewer rows than experts
      given.append((rows, expert(rows).logits))
  return _layers(given, len(labels))[: None if is_paced else 1]


def _layers(given: list[tuple[np.ndarray, Any]], rows: int):
  """The answers with each layer of others laid over them, the last one first.

  Every row is in the first layer, or else the rest of them come later.
  """
  first = given[0][1]
  dtype = np.result_type(*(answers.dtype for _, answers in given))
  table, layers = np.zeros((rows, *first.shape[1:]), dtype), []
  for some, answers in given:
    table = table.copy()
    table[some] = answers
    layers.append(Outputs(cast(Any, table)))
  return tuple(reversed(layers))


def make(
  *,
  score: str = "smallest",
  pacing: float = 0.5,
  select: str = "curriculum",
  cross_entropy_weight: float = 0.1,
  kd_weight: float = 0.9,
  ckd_weight: float = 0.0,
) -> Method:
  """CES-KD, after the abstract of arXiv 2209.07606: the formulas are our own.

  Every image learns by KD at temperature 4 from one of E experts
  (teacher.sources, smallest first). The images are cut into E strata of equal
  size by their difficulty, and stratum s learns from expert s; as long as
  step / steps is below `pacing`, from expert min(s, k) with the ceiling k =
  floor(E step / (pacing steps)). With one teacher it is kd.

  Of N images expert e is asked about those of stratum e and above; without
  pacing about stratum e alone, the smallest expert about all. Three experts
  take 2 N calls, or 5/3 N. The scores `mean` and `count` want every expert's
  answer about every image: E N calls.

  Args:
    score: the difficulty: "smallest", "mean" or "count", see `difficulty`.
    pacing: share of the steps over which the ceiling rises; 0: no ceiling.
    select: "curriculum"; or a control: "random", strata by the order of the
      rows, which budget_seed draws; "reversed", the harder the smaller;
      "largest" or "smallest", that expert alone, without a ceiling: N calls.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of the KD term.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs, with
      the same answers.

  Raises:
    ValueError: an unknown name, or a value outside its range.
  """
  for name, value, known in (
    ("score", score, SCORES),
    ("select", select, SELECTIONS),
  ):
    if value not in known:
      raise ValueError(f"{name} must be one of {known}, not {value!r}")
  at_least(0, pacing=pacing)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)
  at_least(0, **extra._asdict())

  def begin(key, task, student, teacher):
    del key, student, teacher
    return {}, {"paced": jnp.int32(max(round(pacing * task.steps), 1))}

  def loss(params, state, student, batch, key, step):
    del params, key
    last = len(batch.teachers) - 1
    ceiling = jnp.minimum((last + 1) * step // state["paced"], last)
    teacher = _at(last - ceiling, batch.teachers)
    chosen = batch._replace(teachers=(teacher,))
    value, metrics = weighted_sum(extra.terms(student, chosen))
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=begin,
    loss=loss,
    consult=functools.partial(
      consult, score=score, is_paced=pacing > 0, select=select
    ),
  )


def _at(place: jax.Array, teachers: tuple[Outputs, ...]) -> Outputs:
  """The teacher at this place, which may be traced."""
  if len(teachers) == 1:
    return teachers[0]
  return Outputs(jnp.stack([one.logits for one in teachers])[place])
