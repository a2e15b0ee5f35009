"""Relational KD: matches distances of pairs and angles of triplets."""

import jax
import jax.numpy as jnp
import optax

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import (
  check_rows,
  constant,
  distances,
  float32,
  gram,
  map_rows,
  normalise,
)


def rkd(
  student: jax.Array,
  teacher: jax.Array,
  *,
  distance_weight: float = 25.0,
  angle_weight: float = 50.0,
) -> jax.Array:
  """Computes the weighted sum of `rkd_distance` and `rkd_angle`.

  Args:
    student: [n, dim], embeddings.
    teacher: [n, another dim], embeddings. No gradient.
    distance_weight: weight of `rkd_distance`.
    angle_weight: weight of `rkd_angle`.

  Returns:
    float32 scalar; 0 for one example.

  References:
    Park et al., arXiv 1904.05068.
  """
  (student,) = float32(student)
  check_rows(student, teacher)
  distance = rkd_distance(student, teacher)
  angle = rkd_angle(student, teacher)
  return distance_weight * distance + angle_weight * angle


def rkd_distance(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the Huber loss of all distances, each in units of their mean.

  Each network has its own mean, taken over distances above 0: a pair of equal
  examples counts no more than an example and itself.

  Args:
    student: [n, dim], embeddings.
    teacher: [n, another dim], embeddings. No gradient.

  Returns:
    float32 scalar, the mean over all n^2 ordered pairs.

  References:
    arXiv 1904.05068, the distance-wise loss.
  """
  student = _in_units_of_the_mean(distances(student))
  teacher = _in_units_of_the_mean(distances(*constant(teacher)))
  return jnp.mean(optax.huber_loss(student, teacher))


def rkd_angle(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the Huber loss of the cosines at the vertices of all triplets.

  Where two corners coincide, the cosine is 0.

  Args:
    student: [n, dim], embeddings.
    teacher: [n, another dim], embeddings. No gradient.

  Returns:
    float32 scalar, the mean over all n^3 ordered triplets.

  References:
    arXiv 1904.05068, the angle-wise loss.
  """
  (student,) = float32(student)
  (teacher,) = constant(teacher)

  def at_vertex(corners):
    cosines = [
      gram(normalise(points - corner[None]))
      for points, corner in zip((student, teacher), corners, strict=True)
    ]
    return jnp.mean(optax.huber_loss(*cosines))

  width = max(len(student), student.shape[1], teacher.shape[1])
  gaps = map_rows(at_vertex, (student, teacher), floats=len(student) * width)
  return jnp.mean(gaps)


def _in_units_of_the_mean(distance: jax.Array) -> jax.Array:
  count = jnp.maximum(jnp.sum(distance > 0), 1)
  mean = jnp.sum(distance) / count
  return distance / jnp.where(mean > 0, mean, 1.0)


def make(
  *,
  weight: float = 1.0,
  distance_weight: float = 25.0,
  angle_weight: float = 50.0,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """RKD (arXiv 1904.05068) on embeddings, with RepDistiller's weights.

  Args:
    weight: weight of the whole RKD term.
    distance_weight: weight of the distances inside it.
    angle_weight: weight of the angles inside it.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(
    0,
    weight=weight,
    distance_weight=distance_weight,
    angle_weight=angle_weight,
  )
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    value = rkd(
      *inputs.embeddings,
      distance_weight=distance_weight,
      angle_weight=angle_weight,
    )
    return {"rkd": (weight, value)}

  return make_method(terms, extra, needs=("embedding",))
