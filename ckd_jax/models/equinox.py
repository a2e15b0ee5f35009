"""An Equinox module as a `Model`; training begins with the weights it holds."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs, from_dicts, to_dicts


def model(network: Any, begun: Any = None) -> Model:
  """Wraps an `equinox.Module`.

  Args:
    network: called with one image float[h, w, c], normalised, as Equinox has
      it; with `state` where it keeps batch statistics, and with `key=` where it
      takes one (dropout). Returns the logits [classes] or `Outputs` of it, and
      with a state also the next one. Batch norm's axis is named "batch".
    begun: the `equinox.nn.State` of a network that `make_with_state` made.
  """
  import equinox

  params, static = equinox.partition(network, equinox.is_inexact_array)
  takes_key = "key" in inspect.signature(type(network).__call__).parameters

  def init(key: jax.Array, images: jax.Array) -> tuple[dict, dict]:
    del key, images
    copies = jax.tree.map(jnp.array, (params, begun))
    return to_dicts(copies[0]), to_dicts(copies[1])

  def apply(
    own: dict,
    state: dict,
    images: jax.Array,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, dict]:
    whole = equinox.combine(from_dicts(own, params), static)
    whole = equinox.nn.inference_mode(whole, value=not train)
    keys = None
    if takes_key and train and key is not None:
      keys = jax.random.split(key, len(images))

    def one(image, state, key):
      named = {"key": key} if takes_key else {}
      if begun is None:
        return whole(image, **named), None
      return whole(image, state, **named)

    before = None if begun is None else from_dicts(state, begun)
    outputs, after = jax.vmap(
      one,
      axis_name="batch",
      in_axes=(0, None, None if keys is None else 0),
      out_axes=(0, None),
    )(images, before, keys)
    next_state = state if begun is None or not train else to_dicts(after)
    return as_outputs(outputs), next_state

  return Model(init, apply)
