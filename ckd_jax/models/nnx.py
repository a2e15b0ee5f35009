"""An NNX module as a `Model`; training begins with the weights it holds."""

from typing import Any

import jax
import jax.numpy as jnp

from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs, from_dicts, to_dicts


def model(network: Any) -> Model:
  """Wraps a `flax.nnx.Module`.

  Args:
    network: called with float[n, h, w, c], normalised; returns logits
      [n, classes] or `Outputs`. It is a part of the function, and not changed:
      parameters are its `nnx.Param`, all other variables but random streams its
      state. `train()` and `eval()` switch its dropout and its batch norm.
  """
  from flax import nnx

  graph, params, streams, rest = nnx.split(
    network, nnx.Param, nnx.RngState, ...
  )

  def init(key: jax.Array, images: jax.Array) -> tuple[dict, dict]:
    del key, images
    copies = jax.tree.map(jnp.array, (params, rest))
    return to_dicts(copies[0]), to_dicts(copies[1])

  def apply(
    own: dict,
    state: dict,
    images: jax.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, dict]:
    merged = nnx.merge(
      graph,
      from_dicts(own, params),
      streams if key is None else _reseeded(streams, key),
      from_dicts(state, rest),
    )
    merged.train() if train else merged.eval()
    outputs = as_outputs(merged(images))
    _, _, _, after = nnx.split(merged, nnx.Param, nnx.RngState, ...)
    return outputs, to_dicts(after) if train else state

  return Model(init, apply)


def _reseeded(streams, key: jax.Array):
  """The random streams of a network, begun anew from `key`."""
  leaves, structure = jax.tree.flatten(streams)
  fresh = [
    jax.random.fold_in(key, place)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else jnp.zeros_like(leaf)  # how many keys were drawn
    for place, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(structure, fresh)
