"""DIST: correlates the student's probabilities with the teacher's."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import safe_sqrt, to_matching_float32

_EPSILON = 1e-8  # added to the product of the two lengths, as published


def dist(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  beta: float = 1.0,
  gamma: float = 1.0,
  temperature: float = 4.0,
) -> jax.Array:
  """Computes T^2 (beta (1 - r of rows) + gamma (1 - r of columns)).

  r is Pearson's correlation of softmax(logits / T), the mean over examples
  (rows) or over classes (columns). Where a side is constant, it is 0 without a
  gradient; a single example therefore leaves gamma T^2 for its columns.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes]; -inf rules a class out. No gradient.
    beta: weight of the relation between classes.
    gamma: weight of the relation between examples.
    temperature: T, above 0.

  Returns:
    float32 scalar.

  References:
    Huang et al., arXiv 2205.10536; T^2 and T = 4 as in the code of arXiv
    2311.02253.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  student = jax.nn.softmax(student / temperature)
  teacher = jax.nn.softmax(teacher / temperature)
  between_classes = 1 - jnp.mean(correlation(student, teacher))
  between_examples = 1 - jnp.mean(correlation(student.T, teacher.T))
  return temperature**2 * (beta * between_classes + gamma * between_examples)


def correlation(a: jax.Array, b: jax.Array) -> jax.Array:
  """Computes Pearson's correlation of rows, [n, dim] and [n, dim] -> [n].

  It is 0, without a gradient, where a row is constant.
  """
  a, b = _centred(a), _centred(b)
  return jnp.sum(a * b, axis=1) / (_length(a) * _length(b) + _EPSILON)


def _centred(x: jax.Array) -> jax.Array:
  gap = x - jnp.mean(x, axis=1, keepdims=True)
  # A constant row leaves rounding errors: their direction is noise, and
  # division by their length makes gradients too large for float16.
  is_constant = _length(gap) <= 1e-6 * _length(x)
  return jnp.where(is_constant[:, None], 0.0, gap)


def _length(x: jax.Array) -> jax.Array:
  return safe_sqrt(jnp.sum(jnp.square(x), axis=1))


def make(
  *,
  weight: float = 2.0,
  beta: float = 1.0,
  gamma: float = 1.0,
  temperature: float = 4.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 1.0,
  ckd_weight: float = 0.0,
) -> Method:
  """DIST (arXiv 2205.10536) with the weights of arXiv 2311.02253's code.

  Args:
    weight: weight of the whole DIST term.
    beta: weight of the relation between classes.
    gamma: weight of the relation between examples.
    temperature: softening temperature, above 0.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, beta=beta, gamma=gamma)
  above(0, temperature=temperature)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    value = dist(
      inputs.student.logits[:, 0],
      inputs.teacher.logits[:, 0],
      beta=beta,
      gamma=gamma,
      temperature=temperature,
    )
    return {"dist": (weight, value)}

  return make_method(terms, extra)
