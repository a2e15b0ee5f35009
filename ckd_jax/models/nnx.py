"""An NNX module as a `Model`; training begins with its weights."""

from typing import Any

import jax
import jax.numpy as jnp

from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs, from_dicts, to_dicts


def model(network: Any) -> Model:
  """Wraps a `flax.nnx.Module`.

  Args:
    network: called with float[n, h, w, c], normalised, or with tokens
      int32[n, length]; returns logits [n, classes] or `Outputs`. Its
      `nnx.Param` are the parameters; all other variables but random streams and
      sown ones are the state. `train()` and `eval()` switch its dropout and its
      batch norm. The object itself is never changed.
  """
  from flax import nnx

  kinds = (nnx.Param, nnx.RngState, nnx.Intermediate, ...)
  graph, held, streams, sown, rest = nnx.split(network, *kinds)

  def init(key: jax.Array, inputs: Any) -> tuple[dict, dict]:
    del key, inputs
    copies = jax.tree.map(jnp.array, (held, rest))
    return _to_dicts(copies[0]), _to_dicts(copies[1])

  def apply(
    params: dict,
    state: dict,
    inputs: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, dict]:
    merged = nnx.merge(
      graph,
      _from_dicts(params, held),
      streams if key is None else _reseeded(streams, key),
      sown,
      _from_dicts(state, rest),
    )
    merged.train() if train else merged.eval()
    outputs = as_outputs(merged(inputs))
    *_, after = nnx.split(merged, *kinds)
    return outputs, _to_dicts(after) if train else state

  return Model(init, apply)


def _to_dicts(state: Any) -> dict[str, Any]:
  """An `nnx.State` as nested dicts, with the names of its variables."""
  from flax import nnx

  return to_dicts(nnx.to_pure_dict(state))


def _from_dicts(nested: dict[str, Any], like: Any) -> Any:
  """The inverse of `_to_dicts`; `like` gives the structure."""
  from flax import nnx

  values = from_dicts(nested, nnx.to_pure_dict(like))
  state = jax.tree.map(lambda leaf: leaf, like)  # a copy, to be filled
  nnx.replace_by_pure_dict(state, values)
  return state


def _reseeded(streams: Any, key: jax.Array) -> Any:
  """The random streams of a network, seeded from `key`."""
  leaves, structure = jax.tree.flatten(streams)
  fresh = [
    jax.random.fold_in(key, place)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else jnp.zeros_like(leaf)  # how many keys were drawn
    for place, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(structure, fresh)
