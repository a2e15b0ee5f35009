"""What losses share: float32 arithmetic, finite values, finite gradients."""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp

_PIECE = 2**23  # float32 values in one intermediate array: 32 MB


def float32(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Casts arrays of any precision to float32, in which every loss computes."""
  return tuple(_widen(jnp.asarray(array)) for array in arrays)


def _widen(x: jax.Array) -> jax.Array:
  return _from_half(x) if x.dtype == jnp.float16 else x.astype(jnp.float32)


@jax.custom_vjp
def _from_half(x: jax.Array) -> jax.Array:
  return x.astype(jnp.float32)


# Clip the cotangent to float16's maximum; larger values become inf.
_from_half.defvjp(
  lambda x: (x.astype(jnp.float32), None),
  lambda _, g: (jnp.clip(g, -65504.0, 65504.0).astype(jnp.float16),),
)


def constant(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Casts a teacher's outputs to float32 and stops their gradient."""
  return tuple(jax.lax.stop_gradient(array) for array in float32(*arrays))


def to_matching_float32(
  student: jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Casts both to float32 and stops the teacher's gradient.

  Args:
    student: array of any shape.
    teacher: array of the same shape.

  Raises:
    ValueError: the shapes differ; broadcasting would hide a mistake.
  """
  (student,), (teacher,) = float32(student), constant(teacher)
  check_shapes(student, teacher)
  return student, teacher


def check_shapes(student: jax.Array, teacher: jax.Array) -> None:
  """Raises ValueError if the shapes differ."""
  if student.shape != teacher.shape:
    raise ValueError(
      f"student {student.shape} and teacher {teacher.shape} must have the same"
      " shape"
    )


def check_rows(student: jax.Array, teacher: jax.Array) -> None:
  """Raises ValueError if the numbers of rows, the examples, differ."""
  if len(student) != len(teacher):
    raise ValueError(
      f"student {student.shape} and teacher {teacher.shape} must be about the"
      " same examples: as many rows"
    )


def kl_divergence(
  teacher_logits: jax.Array, student_logits: jax.Array
) -> jax.Array:
  """Computes KL(softmax(teacher) || softmax(student)) over the last axis.

  A teacher logit of -inf is a class ruled out: its term is exactly 0, for the
  value and for the gradient.

  Args:
    teacher_logits: [..., classes], finite or -inf.
    student_logits: [..., classes], finite.

  Returns:
    [...], in nats.
  """
  student = jax.nn.log_softmax(student_logits)
  teacher = jax.nn.log_softmax(teacher_logits)
  # Only -inf: a NaN must not count as a class ruled out.
  possible = teacher != -jnp.inf
  # The inner where keeps 0 * inf out of the value and of the gradient.
  teacher = jnp.where(possible, teacher, 0.0)
  probability = jnp.where(possible, jnp.exp(teacher), 0.0)
  return jnp.sum(probability * (teacher - student), axis=-1)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Computes -log softmax(logits)[label].

  Args:
    logits: [..., classes].
    labels: int[...], classes.

  Returns:
    float32[...], in nats.
  """
  log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
  picked = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)
  return -picked[..., 0]


def counted(values: jax.Array, labels: jax.Array) -> jax.Array:
  """Computes the mean over the positions whose label is not negative.

  What stands at the other positions, NaN included, has no effect.

  Args:
    values: [...], one value per position.
    labels: int[...], negative where a position is not counted.

  Returns:
    float32 scalar; 0 where nothing is counted.
  """
  (values,), labels = float32(values), jnp.asarray(labels)
  if values.shape != labels.shape:
    raise ValueError(
      f"values {values.shape} and labels {labels.shape} must have the same"
      " shape"
    )
  is_counted = labels >= 0
  total = jnp.sum(jnp.where(is_counted, values, 0.0))
  return total / jnp.maximum(jnp.sum(is_counted), 1)


def normalise(x: jax.Array) -> jax.Array:
  """Scales rows to length 1; a zero row and its gradient stay zero.

  Args:
    x: [..., dim].

  Returns:
    float32[..., dim].
  """
  (x,) = float32(x)
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  # Double where: rsqrt never sees a zero, not even in the gradient.
  is_zero = square < 1e-24
  return x * jnp.where(
    is_zero, 0.0, jax.lax.rsqrt(jnp.where(is_zero, 1, square))
  )


def safe_sqrt(square: jax.Array) -> jax.Array:
  """Takes the square root; its gradient at 0 is 0 instead of infinite."""
  is_zero = square <= 0
  return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def distances(x: jax.Array) -> jax.Array:
  """Computes the Euclidean distances between all rows from differences.

  The Gram matrix would be faster but inexact: for equal rows with a mean of 50
  it gives a distance of 1.8.

  Args:
    x: [n, dim].

  Returns:
    float32[n, n], symmetric, its diagonal exactly 0.
  """
  (x,) = float32(x)

  def to_all(row):
    return safe_sqrt(jnp.sum(jnp.square(x - row[None]), axis=1))

  return map_rows(to_all, x, floats=x.size)


class OfRow(Protocol):
  """Computes an array from one row of every array of a tree."""

  def __call__(self, row: Any, /) -> jax.Array: ...


def map_rows(function: OfRow, rows: Any, *, floats: int) -> jax.Array:
  """Applies a function to every row, with bounded memory forward and back.

  Args:
    function: maps one row of every array to an array.
    rows: pytree of arrays [n, ...].
    floats: float32 values that `function` holds while it computes one row.

  Returns:
    [n, ...], the results stacked.
  """
  together = max(1, _PIECE // floats)
  if together >= len(jax.tree.leaves(rows)[0]):
    return jax.vmap(function)(rows)
  # The backward pass recomputes pieces instead of storing all of them.
  return jax.lax.map(jax.checkpoint(function), rows, batch_size=together)


@jax.custom_jvp
def gram(x: jax.Array) -> jax.Array:
  """Computes the inner products of all rows in full float32.

  By default accelerators round the factors of a product to TensorFloat-32 or
  bfloat16, and the cosine of opposite rows falls below -1.

  Args:
    x: float32[..., n, dim].

  Returns:
    float32[..., n, n].
  """
  return jnp.matmul(x, x.mT, precision=jax.lax.Precision.HIGHEST)


@gram.defjvp
def _gram_tangent(x, tangent):
  """Needs one product: the transpose is (g + g.mT) x; autodiff makes two."""
  (x,), (tangent,) = x, tangent
  half = jnp.matmul(tangent, x.mT, precision=jax.lax.Precision.HIGHEST)
  return gram(x), half + half.mT


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(x: jax.Array, one_pass: bool) -> tuple[jax.Array, jax.Array]:
  """Computes the mean and the variance over all axes but the last.

  Args:
    x: float32[..., channels].
    one_pass: computes the variance as mean(x^2) - mean(x)^2, in the same pass
      as the mean. Its error is about 1e-7 of mean(x)^2: below what x has lost
      already if it was rounded to bfloat16, and all digits if it was not and
      its mean is a thousand deviations.

  Returns:
    float32[channels] twice.
  """
  axes = tuple(range(x.ndim - 1))
  mean = jnp.mean(x, axes)
  if one_pass:
    var = jnp.mean(jnp.square(x), axes) - jnp.square(mean)
    return mean, jnp.maximum(var, 0.0)
  return mean, jnp.mean(jnp.square(x - _last(mean, x)), axes)


@moments.defjvp
def _moments_tangent(one_pass, x, tangent):
  """The mean moves the variance by nothing, so its tangent is left out."""
  (x,), (tangent,) = x, tangent
  mean, var = moments(x, one_pass)
  axes = tuple(range(x.ndim - 1))
  moved = 2 * jnp.mean(tangent * (x - _last(mean, x)), axes)
  return (mean, var), (jnp.mean(tangent, axes), moved)


def _last(vector: jax.Array, x: jax.Array) -> jax.Array:
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def mean_counted(values: jax.Array, labels: jax.Array) -> jax.Array:
  """The mean over a batch: of rows, or of the positions that are counted.

  Args:
    values: [batch, group], one of each row; or [batch, group, length].
    labels: int[batch, group], classes; or int[batch, group, length], negative
      where a position is not counted.

  Returns:
    A scalar, 0 where nothing is counted.
  """
  return jnp.mean(values) if labels.ndim < 3 else counted(values, labels)
