"""Probabilistic Knowledge Transfer: similarities as probabilities."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_rows, constant, float32, gram, normalise

_EPSILON = 1e-7  # added to probabilities before the logarithm, as published


def pkt(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the divergence of two similarity matrices.

  A similarity is (cosine + 1) / 2, and every row is scaled to a distribution. A
  zero row has cosine 0 with every other.

  Args:
    student: [n, ...].
    teacher: [n, ...], of any other shape. No gradient.

  Returns:
    float32 scalar: the sum over rows of KL(teacher || student), over n^2.

  References:
    Passalis and Tefas, arXiv 1803.10837, with the cosine kernel.
  """
  check_rows(student, teacher)
  student = _probabilities(*float32(student))
  teacher = _probabilities(*constant(teacher))
  ratio = jnp.log(teacher + _EPSILON) - jnp.log(student + _EPSILON)
  return jnp.mean(teacher * ratio)


def _probabilities(x: jax.Array) -> jax.Array:
  cosine = gram(normalise(x.reshape(len(x), -1)))
  # Rounding may take the cosine of opposite rows below -1.
  similarity = jnp.maximum((cosine + 1) / 2, 0.0)
  return similarity / jnp.sum(similarity, axis=1, keepdims=True)


def make(
  *,
  weight: float = 30000.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """PKT (arXiv 1803.10837) on embeddings, with RepDistiller's weights.

  Args:
    weight: weight of the divergence.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    return {"pkt": (weight, pkt(*inputs.embeddings))}

  return make_method(terms, extra, needs=("embedding",))
