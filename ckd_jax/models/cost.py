"""The cost of a network: parameters, and operations per example."""

import jax

from ckd_jax.methods import Model


def parameters(params) -> int:
  """Counts the numbers in a tree of arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def flops(model: Model, params, state, shown) -> float:
  """Floating-point operations for one example in evaluation mode.

  A multiplication and an addition count as two; the figure is XLA's own.

  Args:
    model: architecture of the network.
    params: its parameters, arrays or shapes.
    state: its batch statistics, arrays or shapes.
    shown: shapes of what the network sees, of one row.
  """

  def forward(params, state, inputs):
    return model.apply(params, state, inputs, train=False)[0].logits

  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, state)
  )
  with jax.default_device(_counting_device()):
    analysis = jax.jit(forward).lower(*shapes, shown).cost_analysis()
  return float((analysis or {}).get("flops", float("nan")))


def _counting_device() -> jax.Device | None:
  """The CPU: XLA does not count for a GPU what is not compiled."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS without it
    return None
