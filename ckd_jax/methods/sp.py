"""Similarity-preserving distillation: similarities inside a batch."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_rows, constant, float32, gram, normalise


def similarity_preserving(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the mean squared difference of two similarity matrices.

  A similarity matrix [n, n] holds the inner products of all flattened examples;
  its rows are scaled to length 1 (a zero row stays zero).

  Args:
    student: [n, ...], for instance a map.
    teacher: [n, ...], of any other shape. No gradient.

  Returns:
    float32 scalar, the sum of squares over n^2.

  References:
    Tung and Mori, arXiv 1907.09682.
  """
  check_rows(student, teacher)
  student = _similarities(*float32(student))
  teacher = _similarities(*constant(teacher))
  return jnp.mean(jnp.square(student - teacher))


def _similarities(x: jax.Array) -> jax.Array:
  return normalise(gram(x.reshape(len(x), -1)))


def make(
  *,
  weight: float = 3000.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """SP (arXiv 1907.09682) on the last map, with RepDistiller's weights.

  Args:
    weight: weight of the similarity loss.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    value = similarity_preserving(
      inputs.student.maps[-1][:, 0], inputs.teacher.maps[-1][:, 0]
    )
    return {"sp": (weight, value)}

  return make_method(terms, extra, needs=("maps",))
