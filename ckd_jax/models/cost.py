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
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, state)
  )
  with jax.default_device(_counting_device()):
    analysis = jax.jit(forward).lower(*shapes, image).cost_analysis()
  return float((analysis or {}).get("flops", float("nan")))


def _counting_device() -> jax.Device | None:
  """The CPU: XLA does not count for a GPU what is not compiled."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS without it
    return None
