"""CutMix: a box of one image pasted into another, with the answers to both."""

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Batch, Method
from ckd_jax.methods._checks import above
from ckd_jax.methods._mixing import mixing, paste


def cutmix(key: jax.Array, batch: Batch, *, beta: float = 1.0) -> Batch:
  """Pastes a box of about 1 - lam of the second image over the first.

  lam ~ Beta(beta, beta) and the box are one per batch. The box is cut off at
  the border, and lam is then set to the share of pixels that was kept.

  Args:
    key: draws lam and the box.
    batch: images [batch, 2, h, w, c].
    beta: both parameters of the distribution, above 0.

  Returns:
    The batch with images [batch, 1, h, w, c] and weights [batch, 2]; labels and
    teachers stay those of the two images.

  References:
    Yun et al., arXiv 1905.04899.
  """
  lam_key, box_key = jax.random.split(key)
  lam = sampling.beta(lam_key, beta)
  images, kept = paste(box_key, batch.inputs, lam)
  weights = jnp.broadcast_to(
    jnp.stack([kept, 1 - kept])[None], batch.index.shape
  )
  return batch._replace(inputs=images, weights=weights)


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
  """CutMix with a teacher, a baseline of arXiv 2311.02253 (CutMix: 1905.04899).

  Args:
    weight: weight of the cross-entropy with the teacher's probabilities at
      temperature 1.
    beta: both parameters of lam's Beta distribution, above 0.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of the KD term; none in the published code.
    ckd_weight: weight of the comparison between mixed images.
    temperature: softening temperature of the KD term, above 0.
    max_groups: length of the list of pairs, drawn once.

  Raises:
    ValueError: a value outside its range.
  """
  above(0, beta=beta)

  def prepare(key, batch):
    return cutmix(key, batch, beta=beta)

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
