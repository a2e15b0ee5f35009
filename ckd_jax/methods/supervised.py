"""Labels alone: the student without a teacher, the baseline of every table."""

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Method, stateless
from ckd_jax.numerics import cross_entropy


def make() -> Method:
  """Cross-entropy with the labels. No paper: the reference point of all."""

  def loss(params, state, student, batch, key, step):
    del params, key, step
    value = jnp.mean(cross_entropy(student.logits, batch.labels))
    return value, (state, {"cross_entropy": jax.lax.stop_gradient(value)})

  return Method(
    sample=sampling.batches, init=stateless, loss=loss, needs=frozenset()
  )
