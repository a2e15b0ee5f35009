"""Attention transfer: the student is active where the teacher is active."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._maps import attention, pairs, same_size
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant


def attention_transfer(
  student_map: jax.Array, teacher_map: jax.Array, *, power: int = 2
) -> jax.Array:
  """Computes the mean squared difference of two attention maps.

  Attention is the mean over channels of x^power at every position, as one
  vector of length 1. The larger map is averaged down first. The numbers of
  channels may differ.

  Args:
    student_map: [n, h, w, c].
    teacher_map: [n, h', w', c']. No gradient.
    power: exponent, 1 or more; an odd one keeps the sign of negative values.

  Returns:
    float32[n], one value per example; an attention map of zeros stays zero.

  References:
    Zagoruyko and Komodakis, arXiv 1612.03928, equation 2, squared and as a mean
    over positions.
  """
  student, teacher = same_size(student_map, *constant(teacher_map))
  gap = attention(student, power) - attention(teacher, power)
  return jnp.mean(jnp.square(gap), axis=1)


def make(
  *,
  weight: float = 1000.0,
  power: int = 2,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """AT (arXiv 1612.03928), RepDistiller's weight, all maps but the stem's.

  Args:
    weight: weight of the sum over maps.
    power: exponent of the activations, 1 or more.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  at_least(1, power=power)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    value = sum(
      jnp.mean(attention_transfer(*pair, power=power))
      for pair in pairs(inputs.student, inputs.teacher)[1:]
    )
    return {"at": (weight, value)}

  return make_method(terms, extra, needs=("maps",))
