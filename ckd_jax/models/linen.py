"""A Linen module as a `Model`: two pure functions over plain nested dicts."""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs


def model(
  module: nn.Module, *, dtype=jnp.float32, collection: str = "batch_stats"
) -> Model:
  """Wraps a module that returns `Outputs`, or logits [n, classes].

  Args:
    module: called with images float[n, h, w, c], normalised, or with tokens
      int32[n, length], and with `train` if it takes it; dropout uses the stream
      "dropout".
    dtype: to which images are cast; parameters keep the module's types.
    collection: of the batch statistics; other collections are dropped.
  """
  takes_mode = "train" in inspect.signature(type(module).__call__).parameters

  def mode(train: bool) -> dict[str, Any]:
    return {"train": train} if takes_mode else {}

  # Under jit, init's unused forward pass is removed.
  @partial(jax.jit, static_argnums=(1, 2))
  def make(key: jax.Array, structure, shapes) -> tuple[Any, Any]:
    zeros = [
      jnp.zeros(shape, jax.dtypes.canonicalize_dtype(kind))
      for shape, kind in shapes
    ]
    inputs = _cast(jax.tree.unflatten(structure, zeros), dtype)
    variables: Any = module.init(key, inputs, **mode(False))
    # Plain arrays, without the axis names that flax may wrap around them.
    variables = nn.meta.unbox(variables)
    return variables.get("params", {}), variables.get(collection, {})

  def init(key: jax.Array, inputs: Any) -> tuple[Any, Any]:
    leaves, structure = jax.tree.flatten(inputs)
    return make(key, structure, tuple((x.shape, x.dtype) for x in leaves))

  def apply(
    params: dict,
    state: dict,
    inputs: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, Any]:
    updates: Any
    outputs, updates = module.apply(
      {"params": params, collection: state},
      _cast(inputs, dtype),
      **mode(train),
      rngs=None if key is None else {"dropout": key},
      mutable=[collection] if train else [],
    )
    return as_outputs(outputs), updates.get(collection, state)

  return Model(init, apply)


def _cast(inputs: Any, dtype) -> Any:
  """Images in the type of computation; tokens, and mixed ones, as they are."""
  kind = getattr(inputs, "dtype", None)
  if kind is None or np.issubdtype(kind, np.signedinteger):
    return inputs
  return inputs.astype(dtype)
