"""DML: students of one cohort learn from labels and from each other."""

import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Method, stateless
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._mutual import mutual
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.numerics import cross_entropy


def make(
  *,
  weight: float = 1.0,
  temperature: float = 1.0,
  cross_entropy_weight: float = 1.0,
) -> Method:
  """Deep mutual learning (arXiv 1706.00384): no teacher, every student is one.

  The others are named in `peers` of the config; all see the same images and
  are changed in the same step. The loss is the sum over students of
  cross-entropy and the mean divergence from each of the others. A student's
  part has no gradient in the others, but `optimizer.clip_norm` is of all of
  them together: a long gradient of one shortens the others'.

  Args:
    weight: weight of what the others say, `mutual`.
    temperature: T of their answers, above 0; the divergence is times T^2.
    cross_entropy_weight: weight of the cross-entropy with the labels.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, cross_entropy_weight=cross_entropy_weight)
  above(0, temperature=temperature)

  def loss(params, state, student, batch, key, step):
    del params, key, step
    logits = jnp.stack(student.branches)[:, :, 0]
    labels = jnp.broadcast_to(batch.labels[None, :, 0], logits.shape[:2])
    peers = mutual(logits, temperature=temperature)
    value, metrics = weighted_sum(
      {
        "cross_entropy": (
          cross_entropy_weight,
          jnp.sum(jnp.mean(cross_entropy(logits, labels), axis=1)),
        ),
        "mutual": (weight, jnp.sum(jnp.mean(peers, axis=1))),
      }
    )
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=stateless,
    loss=loss,
    needs=frozenset(),
    branches="any",
  )
