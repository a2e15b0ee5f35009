"""What every method can be combined with: labels, KD and CKD, by weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ckd_jax.methods import Batch, Outputs
from ckd_jax.methods._checks import at_least
from ckd_jax.methods.ckd import ckd_all
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import cross_entropy


def combined(
  *,
  cross_entropy_weight: float,
  kd_weight: float,
  ckd_weight: float,
) -> Callable:
  """total(student, batch, **own) -> (value, metrics).

  Args:
    cross_entropy_weight: of the cross-entropy with the labels.
    kd_weight: of `kd` at temperature 4.
    ckd_weight: of `ckd_all` over pairs, against the teacher and the labels.

  Returns:
    A function that adds these terms, where their weight is not 0, to a method's
    own, given by name as (weight, value). Its metrics are the values.

  Raises:
    ValueError: a weight below 0.
  """
  at_least(
    0,
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    ckd_weight=ckd_weight,
  )

  def total(student: Outputs, batch: Batch, **own):
    terms = dict(own)
    if cross_entropy_weight:
      value = jnp.mean(cross_entropy(student.logits, batch.labels))
      terms["cross_entropy"] = (cross_entropy_weight, value)
    if kd_weight:
      value = jnp.mean(kd(student.logits, batch.teachers[0].logits))
      terms["kd"] = (kd_weight, value)
    if ckd_weight:
      logits, answers = student.logits[:, 0], batch.teachers[0].logits[:, 0]
      one_hot = jax.nn.one_hot(batch.labels[:, 0], logits.shape[-1])
      value = ckd_all(logits, answers) + ckd_all(logits, one_hot)
      terms["ckd"] = (ckd_weight, value)
    value = sum(weight * value for weight, value in terms.values())
    metrics = {name: value for name, (_, value) in terms.items()}
    return value, jax.lax.stop_gradient(metrics)

  return total
