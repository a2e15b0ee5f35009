"""Learned heads as plain dicts of arrays, initialised as PyTorch does."""

import jax
import jax.numpy as jnp


def linear(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
  """Parameters of `apply_linear`: uniform within 1 / sqrt(inputs)."""
  weight_key, bias_key = jax.random.split(key)
  bound = inputs**-0.5
  shape = (inputs, outputs)
  return {
    "weight": jax.random.uniform(weight_key, shape, jnp.float32, -bound, bound),
    "bias": jax.random.uniform(
      bias_key, (outputs,), jnp.float32, -bound, bound
    ),
  }


def apply_linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  """[n, inputs] -> float32[n, outputs]."""
  return x.astype(jnp.float32) @ params["weight"] + params["bias"][None]
