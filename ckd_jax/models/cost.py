"""The cost of a network: parameters, and operations per image."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Model


def parameters(params) -> int:
  """Counts the numbers in a tree of arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def flops(model: Model, params, state, image_shape) -> float:
  """Floating-point operations for one image in evaluation mode.

  A multiplication and an addition count as two; the figure is XLA's own.

  Args:
    model: architecture of the network.
    params: its parameters, arrays or shapes.
    state: its batch statistics, arrays or shapes.
    image_shape: (height, width, channels).
  """

  def forward(params, state, image):
    return model.apply(params, state, image, train=False)[0].logits

  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  analysis = jax.jit(forward).lower(params, state, image).cost_analysis()
  return float((analysis or {}).get("flops", float("nan")))
