"""mixup: two images blended into one, with the answers to both."""

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Batch, Method
from ckd_jax.methods._checks import above
from ckd_jax.methods._mixing import blend, mixing


def mixup(key: jax.Array, batch: Batch, *, beta: float = 1.0) -> Batch:
  """Blends pairs by lam ~ Beta(beta, beta), one lam per batch.

  Args:
    key: draws lam.
    batch: images [batch, 2, h, w, c].
    beta: both parameters of the distribution, above 0.

  Returns:
    The batch with images [batch, 1, h, w, c] and weights [batch, 2]; labels and
    teachers stay those of the two images.

  References:
    Zhang et al., arXiv 1710.09412.
  """
  lam = sampling.beta(key, beta)
  weights = jnp.stack([lam, 1 - lam]).astype(jnp.float32)
  weights = jnp.broadcast_to(weights[None], batch.index.shape)
  return batch._replace(inputs=blend(batch.inputs, weights), weights=weights)


def make(
  *,
  weight: float = 1.0,
  beta: float = 1.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
  temperature: float = 4.0,
  max_groups: int = 100_000,
) -> Method:
  """mixup with a teacher, the baseline of arXiv 2311.02253 (mixup: 1710.09412).

  Pairs come from a list drawn once. weight=0.0 with kd_weight=1.0 is the form
  with softened probabilities.

  Args:
    weight: weight of the cross-entropy with the teacher's probabilities at
      temperature 1.
    beta: both parameters of lam's Beta distribution, above 0.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of the KD term.
    ckd_weight: weight of the comparison between mixed images.
    temperature: softening temperature of the KD term, above 0.
    max_groups: length of the list of pairs, drawn once.

  Raises:
    ValueError: a value outside its range.
  """
  above(0, beta=beta)

  def prepare(key, batch):
    return mixup(key, batch, beta=beta)

  return mixing(
    2,
    prepare,
    weight=weight,
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    ckd_weight=ckd_weight,
    temperature=temperature,
    max_groups=max_groups,
  )
