"""The weighted sum of a loss's terms, and what is logged of it."""

from collections.abc import Mapping

import jax

# What a loss returns beside its value: each term by name, unweighted.
Terms = Mapping[str, tuple[float | jax.Array, jax.Array]]  # (weight, value)


def weighted_sum(terms: Terms) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Adds up the terms, in their order.

  Args:
    terms: name -> (weight, value), both scalars.

  Returns:
    The sum of weight * value, and the values by name, which carry no gradient.
  """
  value = sum(weight * value for weight, value in terms.values())
  metrics = {name: value for name, (_, value) in terms.items()}
  return value, jax.lax.stop_gradient(metrics)
