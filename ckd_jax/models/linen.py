"""A Linen module as a `Model`: two pure functions over plain nested dicts."""

import inspect
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs


def model(
  module: nn.Module, *, dtype=jnp.float32, collection: str = "batch_stats"
) -> Model:
  """Wraps a module that returns `Outputs`, or logits [n, classes].

  Args:
    module: called with images float[n, h, w, c], normalised, and with `train`
      if it takes it; dropout uses the stream "dropout".
    dtype: to which images are cast; parameters keep the module's types.
    collection: of the batch statistics; other collections are dropped.
  """
  takes_mode = "train" in inspect.signature(type(module).__call__).parameters

  def mode(train: bool) -> dict[str, Any]:
    return {"train": train} if takes_mode else {}

  # Under jit, init's unused forward pass is removed.
  @partial(jax.jit, static_argnames="shape")
  def make(key: jax.Array, shape: tuple[int, ...]) -> tuple[Any, Any]:
    variables: Any = module.init(key, jnp.zeros(shape, dtype), **mode(False))
    # Plain arrays, without the axis names that flax may wrap around them.
    variables = nn.meta.unbox(variables)
    return variables.get("params", {}), variables.get(collection, {})

  def init(key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
    return make(key, images.shape)

  def apply(
    params: dict,
    state: dict,
    images: jax.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, Any]:
    updates: Any
    outputs, updates = module.apply(
      {"params": params, collection: state},
      images.astype(dtype),
      **mode(train),
      rngs=None if key is None else {"dropout": key},
      mutable=[collection] if train else [],
    )
    return as_outputs(outputs), updates.get(collection, state)

  return Model(init, apply)
