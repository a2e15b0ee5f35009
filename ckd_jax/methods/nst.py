"""Neuron selectivity transfer: matches what the channels respond to."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._maps import pairs, same_size
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant, normalise


def nst(student_map: jax.Array, teacher_map: jax.Array) -> jax.Array:
  """Computes the squared maximum mean discrepancy between channels.

  A channel is the vector of its responses at all positions, of length 1. With
  k(a, b) = (a . b)^2 the loss is the mean of k over pairs of teacher channels,
  plus that over pairs of student channels, minus twice that over mixed pairs.
  The larger map is averaged down first. The numbers of channels may differ.

  Args:
    student_map: [n, h, w, c].
    teacher_map: [n, h', w', c']. No gradient.

  Returns:
    float32[n], one value per example; a channel of zeros stays zero.

  References:
    Huang and Wang, arXiv 1707.01219, the polynomial kernel of degree 2 and c=0.
  """
  student, teacher = map(
    _channels, same_size(student_map, *constant(teacher_map))
  )
  return (
    _kernel(teacher, teacher)
    + _kernel(student, student)
    - 2 * _kernel(student, teacher)
  )


def _channels(x: jax.Array) -> jax.Array:
  """[n, h, w, c] -> [n, c, h * w], rows of length 1."""
  rows = x.reshape(len(x), -1, x.shape[-1])
  return normalise(jnp.swapaxes(rows, 1, 2))


def _kernel(a: jax.Array, b: jax.Array) -> jax.Array:
  # Three means nearly cancel: the rounding of default products would show.
  products = jnp.einsum("nip,njp->nij", a, b, precision="highest")
  return jnp.mean(jnp.square(products), axis=(1, 2))


def make(
  *,
  weight: float = 50.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """NST (arXiv 1707.01219), RepDistiller's weight, all maps but the stem's.

  Args:
    weight: weight of the sum over maps.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    value = sum(
      jnp.mean(nst(*pair)) for pair in pairs(inputs.student, inputs.teacher)[1:]
    )
    return {"nst": (weight, value)}

  return make_method(terms, extra, needs=("maps",))
