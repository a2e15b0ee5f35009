"""What the losses share: float32 inside, finite values and finite gradients."""

import jax
import jax.numpy as jnp


def float32(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Every loss computes in float32, whatever precision comes in."""
  return tuple(jnp.asarray(array).astype(jnp.float32) for array in arrays)


def constant(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """A teacher's answers in float32, carrying no gradient."""
  return tuple(jax.lax.stop_gradient(array) for array in float32(*arrays))


def kl_divergence(
  teacher_logits: jax.Array, student_logits: jax.Array
) -> jax.Array:
  """KL(softmax(teacher) || softmax(student)) over the last axis.

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
  possible = jnp.isfinite(teacher)
  # The inner where keeps 0 * inf out of the gradient as well as of the value.
  teacher = jnp.where(possible, teacher, 0.0)
  probability = jnp.where(possible, jnp.exp(teacher), 0.0)
  return jnp.sum(probability * (teacher - student), axis=-1)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """-log softmax(logits)[label].

  Args:
    logits: [..., classes].
    labels: int[...].

  Returns:
    float32[...], in nats.
  """
  log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
  picked = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)
  return -picked[..., 0]


def normalise(x: jax.Array) -> jax.Array:
  """Rows of length 1; a zero row stays zero, and so does its gradient.

  Args:
    x: [..., dim].

  Returns:
    float32[..., dim].
  """
  (x,) = float32(x)
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  # The double where: rsqrt never sees the zero, not even in the gradient.
  is_zero = square < 1e-24
  return x * jnp.where(is_zero, 0.0, jax.lax.rsqrt(jnp.where(is_zero, 1, square)))


def safe_sqrt(square: jax.Array) -> jax.Array:
  """sqrt whose gradient at 0 is 0 instead of infinite."""
  is_zero = square <= 0
  return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def distances(x: jax.Array) -> jax.Array:
  """Euclidean distances between all rows, from their differences.

  Not by the Gram matrix: for features of mean 50 it misses by 1.8 at distance 0.

  Args:
    x: [n, dim].

  Returns:
    float32[n, n], symmetric, its diagonal exactly 0.
  """
  (x,) = float32(x)
  gap = x[:, None] - x[None]
  return safe_sqrt(jnp.sum(jnp.square(gap), axis=-1))
