"""Methods as a sum: their own terms, and labels, KD and CKD by weights."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Batch, Method, Outputs, Stage, stateless
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._sum import Terms, weighted_sum
from ckd_jax.methods.ckd import ckd_all
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import cross_entropy


class Inputs(NamedTuple):
  """What the terms of a method may look at in one step.

  Attributes:
    student: Outputs of [batch, 1, ...].
    teacher: the first teacher's Outputs of [batch, 1, ...].
    batch: whose images were compared.
    params: of the method's heads.
    state: of the method's memories.
    key: of this step.
    step: int32, how many steps were done before.
  """

  student: Outputs
  teacher: Outputs | None
  batch: Batch
  params: Any
  state: Any
  key: jax.Array
  step: jax.Array


class Extra(NamedTuple):
  """Weights of the terms that every method can be combined with.

  Attributes:
    cross_entropy_weight: of the cross-entropy with the labels.
    kd_weight: of `kd` at temperature 4.
    ckd_weight: of `ckd_all` over pairs, against the teacher and the labels.
  """

  cross_entropy_weight: float
  kd_weight: float
  ckd_weight: float

  def terms(self, student: Outputs, batch: Batch) -> Terms:
    """Those whose weight is not 0."""
    terms = {}
    if self.cross_entropy_weight:
      value = jnp.mean(cross_entropy(student.logits, batch.labels))
      terms["cross_entropy"] = (self.cross_entropy_weight, value)
    if self.kd_weight:
      value = jnp.mean(kd(student.logits, batch.teachers[0].logits))
      terms["kd"] = (self.kd_weight, value)
    if self.ckd_weight:
      logits, answers = student.logits[:, 0], batch.teachers[0].logits[:, 0]
      one_hot = jax.nn.one_hot(batch.labels[:, 0], logits.shape[-1])
      value = ckd_all(logits, answers) + ckd_all(logits, one_hot)
      terms["ckd"] = (self.ckd_weight, value)
    return terms


def make_method(
  own: Callable[[Inputs], Any],
  extra: Extra,
  *,
  needs: Iterable[str] = (),
  init: Callable = stateless,
  stages: tuple[Stage, ...] = (),
) -> Method:
  """A method over a batch of distinct images: its own terms, and those extra.

  Args:
    own: Inputs -> {name: (weight, value)}, or that and the method's next state.
    extra: weights of the other terms.
    needs: fields of `Outputs` beside "logits" that it compares.
    init: as `Method.init`.
    stages: what comes before the main part.

  Raises:
    ValueError: a weight below 0.
  """
  at_least(0, **extra._asdict())

  def loss(params, state, student, batch, key, step):
    teacher = batch.teachers[0] if batch.teachers else None
    terms = own(Inputs(student, teacher, batch, params, state, key, step))
    terms, state = terms if isinstance(terms, tuple) else (terms, state)
    value, metrics = weighted_sum({**terms, **extra.terms(student, batch)})
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=init,
    loss=loss,
    needs=frozenset({"logits", *needs}),
    stages=stages,
  )
