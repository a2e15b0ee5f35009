"""Sums the terms of a loss by their weights, and logs each of them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

# The terms of a loss by name: (weight, value), both scalars.
Terms = Mapping[str, tuple[float | jax.Array, float | jax.Array]]


def weighted_sum(terms: Terms) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Adds up the terms of a loss, in their order.

  Args:
    terms: name -> (weight, value), both scalars.

  Returns:
    The sum of weight * value, and the values by name, which carry no gradient.
  """
  value = jnp.float32(0.0)
  for weight, term in terms.values():
    value = value + weight * term
  metrics = {name: jnp.asarray(term) for name, (_, term) in terms.items()}
  return value, jax.lax.stop_gradient(metrics)
