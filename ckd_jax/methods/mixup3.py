"""mixup of three images, with the answers to all three."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Batch, Method
from ckd_jax.methods._mixing import blend, mixing


def mixup3(key: jax.Array, batch: Batch) -> Batch:
  """Blends three images by three uniform draws, divided by their sum.

  Args:
    key: makes the draws, one set per batch.
    batch: images [batch, 3, h, w, c].

  Returns:
    The batch with images [batch, 1, h, w, c] and weights [batch, 3]; labels and
    teachers stay those of the three images.

  References:
    arXiv 2311.02253 v1, a baseline.
  """
  # From above 0: the sum is never 0.
  weights = jax.random.uniform(key, (1, 3), jnp.float32, 1e-6, 1.0)
  weights = weights / jnp.sum(weights)
  weights = jnp.broadcast_to(weights, batch.index.shape)
  return batch._replace(inputs=blend(batch.inputs, weights), weights=weights)


def make(
  *,
  weight: float = 1.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
  temperature: float = 4.0,
  max_groups: int = 100_000,
) -> Method:
  """mixup of three with a teacher, a baseline of arXiv 2311.02253 v1.

  Args:
    weight: weight of the cross-entropy with the teacher's probabilities at
      temperature 1.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of the KD term.
    ckd_weight: weight of the comparison between mixed images.
    temperature: softening temperature of the KD term, above 0.
    max_groups: length of the list of triples, drawn once.

  Raises:
    ValueError: a value outside its range.
  """
  return mixing(
    3,
    mixup3,
    weight=weight,
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    ckd_weight=ckd_weight,
    temperature=temperature,
    max_groups=max_groups,
  )
