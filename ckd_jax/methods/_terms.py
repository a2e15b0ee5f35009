"""Builds a method from its terms, and adds labels, KD and CKD to them."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import jax

from ckd_jax import sampling
from ckd_jax.methods import Batch, Init, Method, Outputs, Stage, stateless
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._groups import examples_of
from ckd_jax.methods._sum import Terms, weighted_sum
from ckd_jax.methods.ckd import ckd_all
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import cross_entropy, mean_counted


class Inputs(NamedTuple):
  """What a method's terms are computed from, in one step.

  Attributes:
    student: the student's Outputs, of [batch, 1, ...].
    teacher: the first teacher's Outputs, of [batch, 1, ...], no gradient.
    batch: indices, labels and all teachers, each [batch, 1, ...].
    params: the method's heads, from `Init`.
    state: the method's memories, from `Init` or from the step before.
    key: random key of this step.
    step: int32, training steps before this one.
  """

  student: Outputs
  teacher: Outputs
  batch: Batch
  params: Any
  state: Any
  key: jax.Array
  step: jax.Array

  @property
  def embeddings(self) -> tuple[jax.Array, jax.Array]:
    """Student's and teacher's embeddings, [batch, dim] and [batch, other dim].

    Raises:
      ValueError: one of the networks gives no embedding.
    """
    student, teacher = self.student.embedding, self.teacher.embedding
    if student is None or teacher is None:
      raise ValueError(
        "this method compares embeddings: student and teacher must give them"
      )
    return student[:, 0], teacher[:, 0]

  @property
  def documents(self) -> tuple[jax.Array, jax.Array] | None:
    """The same of the queries' documents; None where nobody reads them."""
    student, teacher = self.student.embedding, self.teacher.embedding
    if student is None or teacher is None or student.shape[1] == 1:
      return None
    return student[:, 1], teacher[:, 1]


class OwnTerms(Protocol):
  """Computes a method's own terms."""

  def __call__(self, inputs: Inputs, /) -> Terms | tuple[Terms, Any]:
    """Returns {name: (weight, value)}, or that and the method's next state.

    Weights and values are scalars. Every value is logged under its name,
    unweighted.
    """
    ...


class Extra(NamedTuple):
  """Weights of the terms that can be added to any method; 0 leaves one out.

  Attributes:
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of `kd` at temperature 4.
    ckd_weight: weight of `ckd_all` over pairs, the sum of its comparisons with
      the teacher and with one-hot labels.
  """

  cross_entropy_weight: float = 0.0
  kd_weight: float = 0.0
  ckd_weight: float = 0.0

  def terms(self, student: Outputs, batch: Batch) -> Terms:
    """Returns the terms whose weight is not 0, after the method's own.

    Args:
      student: Outputs of [batch, 1, ...].
      batch: labels and teachers of [batch, 1, ...].
    """
    terms: dict = {}
    if self.cross_entropy_weight:
      value = cross_entropy(student.logits, batch.labels)
      value = mean_counted(value, batch.labels)
      terms["cross_entropy"] = (self.cross_entropy_weight, value)
    if self.kd_weight:
      value = kd(student.logits, batch.teachers[0].logits)
      value = mean_counted(value, batch.labels)
      terms["kd"] = (self.kd_weight, value)
    if self.ckd_weight:
      one_hot = jax.nn.one_hot(batch.labels, student.logits.shape[-1])
      arrays = student.logits, batch.teachers[0].logits, one_hot
      (logits, answers, one_hot), counts = examples_of(batch.labels, *arrays)
      value = ckd_all(logits[:, 0], answers[:, 0], counted=counts)
      value = value + ckd_all(logits[:, 0], one_hot[:, 0], counted=counts)
      terms["ckd"] = (self.ckd_weight, value)
    return terms


def make_method(
  terms: OwnTerms,
  extra: Extra = Extra(),  # noqa: B008 (immutable)
  *,
  needs: Iterable[str] = (),
  init: Init = stateless,
  stages: tuple[Stage, ...] = (),
  answers: str = "rows",
) -> Method:
  """Builds a method whose loss is a weighted sum over a batch of rows.

  The batch is [batch, 1]: distinct rows, compared as one set. The sum is
  taken in the order in which the terms are given, the extra ones last.

  Args:
    terms: computes the method's own terms.
    extra: weights of the terms added to them.
    needs: fields of `Outputs` beside "logits" that the teacher must provide.
    init: makes heads and memories.
    stages: training before the main part, in order.
    answers: what the method's own terms compare, as in `Method`.

  Raises:
    ValueError: a weight of `extra` is negative or not finite.
  """
  at_least(0, **extra._asdict())

  def loss(params, state, student, batch, key, step):
    teacher = batch.teachers[0]
    found = terms(Inputs(student, teacher, batch, params, state, key, step))
    own, state = found if isinstance(found, tuple) else (found, state)
    value, metrics = weighted_sum({**own, **extra.terms(student, batch)})
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=init,
    loss=loss,
    needs=frozenset({"logits", *needs}),
    stages=stages,
    answers=answers,
  )
