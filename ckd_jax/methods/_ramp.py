"""A weight that grows along a Gaussian (mutual learning, ONE)."""

import jax
import jax.numpy as jnp


def ramp_up(step: float | jax.Array, length: float | jax.Array) -> jax.Array:
  """Computes exp(-5 (1 - step / length)^2), which ends at 1.

  Args:
    step: steps or epochs so far, from 0; held between 0 and `length`.
    length: when the weight is 1, in the same unit; at 0 it always is.

  Returns:
    float32 scalar, 0.0067 at step 0.

  References:
    Laine and Aila, arXiv 1610.02242.
  """
  step, length = jnp.float32(step), jnp.float32(length)
  is_long = length > 0
  done = jnp.clip(step / jnp.where(is_long, length, 1.0), 0.0, 1.0)
  return jnp.where(is_long, jnp.exp(-5 * jnp.square(1 - done)), 1.0)
