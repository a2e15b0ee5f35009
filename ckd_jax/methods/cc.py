"""Correlation congruence: products of neighbouring gaps between embeddings."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._heads import apply_linear, linear
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_shapes, constant, float32


def correlation_congruence(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the mean over i of d[i] . d[i + 1], with d = |student - teacher|.

  Neighbours are consecutive rows, so the value depends on the order of the
  batch.

  Args:
    student: [n, ...], the student's embedding after its head.
    teacher: the same shape, the teacher's embedding after its head. The head is
      trained, so this argument carries a gradient.

  Returns:
    float32 scalar; 0 for one example, which has no neighbour.

  References:
    Peng et al., arXiv 1904.01802, in the form of its authors' code.
  """
  student, teacher = float32(student, teacher)
  check_shapes(student, teacher)
  gap = jnp.abs(student - teacher)
  return jnp.sum(gap[:-1] * gap[1:]) / max(len(gap) - 1, 1)


def make(
  *,
  weight: float = 0.02,
  dim: int = 128,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """CC (arXiv 1904.01802) with RepDistiller's weights and heads.

  Both heads are trained, the teacher's too; only weight decay and the labels
  keep the heads from giving every image the same output.

  Args:
    weight: weight of the correlation loss.
    dim: width of both heads.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  at_least(1, dim=dim)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    student_key, teacher_key = jax.random.split(key)
    params = {
      "student": linear(student_key, student.embedding.shape[-1], dim),
      "teacher": linear(teacher_key, teacher.embedding.shape[-1], dim),
    }
    return params, {}

  def terms(inputs: Inputs):
    student, teacher = inputs.embeddings
    value = correlation_congruence(
      apply_linear(inputs.params["student"], student),
      apply_linear(inputs.params["teacher"], *constant(teacher)),
    )
    return {"cc": (weight, value)}

  return make_method(terms, extra, needs=("embedding",), init=init)
