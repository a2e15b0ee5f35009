"""Neuron selectivity transfer: matches what the channels respond to."""

import jax
import jax.numpy as jnp
from jax import lax

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._maps import pairs, same_size
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant, gram


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
  student, teacher = (
    x.reshape(len(x), -1, x.shape[-1])  # [n, h * w, c]
    for x in same_size(student_map, *constant(teacher_map))
  )
  # Three means nearly cancel: the rounding of default products would show.
  mixed = jnp.einsum("npi,npj->nij", student, teacher, precision="highest")
  ours, theirs = gram(student.mT), gram(teacher.mT)
  our_scale, their_scale = _scale(ours), _scale(theirs)
  return (
    _kernel(theirs, their_scale, their_scale)
    + _kernel(ours, our_scale, our_scale)
    - 2 * _kernel(mixed, our_scale, their_scale)
  )


def _scale(products: jax.Array) -> jax.Array:
  """[n, c, c] -> [n, c]: 1 / the length of every channel, or 0 for zeros.

  Products are divided, not maps: these are a hundred times as large.
  """
  # Not jnp.diagonal, whose derivative is a scatter.
  square = jnp.sum(products * jnp.eye(products.shape[-1])[None], axis=1)
  # Double where: rsqrt never sees a zero, not even in the gradient.
  is_zero = square < 1e-24
  return jnp.where(is_zero, 0.0, lax.rsqrt(jnp.where(is_zero, 1.0, square)))


def _kernel(products, rows, columns) -> jax.Array:
  cosine = products * rows[:, :, None] * columns[:, None]
  return jnp.mean(jnp.square(cosine), axis=(1, 2))


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
