"""Invariant Consistency Distillation: in-batch contrast in both directions."""

import math

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._heads import apply_linear, linear
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_shapes, constant, normalise


def icd(
  student: jax.Array,
  teacher: jax.Array,
  *,
  log_scale: float | jax.Array = 1.0,
  bias: float | jax.Array = 0.0,
  alpha: float = 0.5,
  max_scale: float = 10.0,
) -> jax.Array:
  """Computes the contrastive term plus alpha times the consistency term.

  With A = s u v^T + b, u and v the normalised rows of student and teacher and
  s = min(exp(log_scale), max_scale): the mean of -log softmax_row(A)[i, i], and
  the mean over i of KL(Q_i || P_i), where P is the softmax of the rows of A and
  Q_i the softmax of its column i.

  The bias is published as a parameter to learn, but adding a constant to A
  changes neither softmax: its gradient is exactly 0. Above max_scale log_scale
  has no gradient either.

  Args:
    student: [n, dim], the student's embedding after its head.
    teacher: [n, dim], the teacher's embedding after its head. The head is
      trained, so this argument carries a gradient.
    log_scale: logarithm of s, learned.
    bias: b, which has no effect.
    alpha: weight of the consistency term.
    max_scale: upper bound of s.

  Returns:
    float32 scalar, in nats.

  References:
    arXiv 2407.11802 v1, the total of its contrastive and invariance losses.
  """
  check_shapes(student, teacher)
  student, teacher = normalise(student), normalise(teacher)
  log_scale = jnp.asarray(log_scale, jnp.float32)
  # Bounded before the exponential: 0 times an infinite slope is not a number.
  scale = jnp.exp(jnp.minimum(log_scale, jnp.log(max_scale)))
  # Both softmaxes ignore a constant; leaving it out avoids a rounding error.
  del bias
  scores = scale * jnp.matmul(student, teacher.T, precision="highest")
  rows = jax.nn.log_softmax(scores, axis=1)
  columns = jax.nn.log_softmax(scores, axis=0).T
  contrast = -jnp.mean(jnp.diagonal(rows))
  consistency = jnp.mean(jnp.sum(jnp.exp(columns) * (columns - rows), axis=1))
  return contrast + alpha * consistency


def make(
  *,
  weight: float = 1.0,
  alpha: float = 0.5,
  max_scale: float = 10.0,
  initial_log_scale: float = 1.0,
  dim: int = 128,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """ICD (arXiv 2407.11802 v1); kd_weight=1.0 is its ICD+KD.

  Both heads, the scale and the (inert) bias are trained with the student.

  Args:
    weight: weight of the whole ICD term.
    alpha: weight of the consistency term inside it.
    max_scale: upper bound of the learned scale, above 0.
    initial_log_scale: logarithm of the scale at the start.
    dim: width of both heads.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, alpha=alpha)
  at_least(1, dim=dim)
  above(0, max_scale=max_scale)
  above(-math.inf, initial_log_scale=initial_log_scale)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    student_key, teacher_key = jax.random.split(key)
    params = {
      "student": linear(student_key, student.embedding.shape[-1], dim),
      "teacher": linear(teacher_key, teacher.embedding.shape[-1], dim),
      "log_scale": jnp.float32(initial_log_scale),
      "bias": jnp.zeros((), jnp.float32),
    }
    return params, {}

  def terms(inputs: Inputs):
    student, teacher = inputs.embeddings
    value = icd(
      apply_linear(inputs.params["student"], student),
      apply_linear(inputs.params["teacher"], *constant(teacher)),
      log_scale=inputs.params["log_scale"],
      bias=inputs.params["bias"],
      alpha=alpha,
      max_scale=max_scale,
    )
    return {"icd": (weight, value)}

  return make_method(terms, extra, needs=("embedding",), init=init)
