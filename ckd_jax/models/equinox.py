"""An Equinox module as a `Model`; training begins with its weights."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs, from_dicts, to_dicts


def model(network: Any, begun: Any = None) -> Model:
  """Wraps an `equinox.Module`.

  Args:
    network: called with one image float[h, w, c], normalised, or with one text
      int32[length]; also with `state` if it has batch statistics, and with
      `key=` if it takes one (dropout). Returns logits [classes] or `Outputs`,
      and the next state if it has one. Batch norm's axis is named "batch". Its
      floating-point arrays are the parameters.
    begun: the `equinox.nn.State` that `make_with_state` returned.

  Raises:
    UserError: the network has a state, and `begun` is not given.
  """
  import equinox

  if begun is None and _keeps_state(network):
    raise UserError(
      f"{type(network).__name__} keeps a state: give the pair (network, state)"
      " that equinox.nn.make_with_state(...)(...) returns"
    )
  held, static = equinox.partition(network, equinox.is_inexact_array)
  takes_key = "key" in inspect.signature(type(network).__call__).parameters

  def init(key: jax.Array, inputs: Any) -> tuple[dict, dict]:
    del key, inputs
    copies = jax.tree.map(jnp.array, (held, begun))
    return to_dicts(copies[0]), to_dicts(copies[1])

  def apply(
    params: dict,
    state: dict,
    inputs: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, dict]:
    whole = equinox.combine(from_dicts(params, held), static)
    whole = equinox.nn.inference_mode(whole, value=not train)
    keys = None
    if takes_key and train and key is not None:
      keys = jax.random.split(key, len(jax.tree.leaves(inputs)[0]))

    def one(row, state, key):
      named = {"key": key} if takes_key else {}
      if begun is None:
        return whole(row, **named), None
      return whole(row, state, **named)

    before = None if begun is None else from_dicts(state, begun)
    outputs, after = jax.vmap(
      one,
      axis_name="batch",
      in_axes=(0, None, None if keys is None else 0),
      out_axes=(0, None),
    )(inputs, before, keys)
    next_state = state if begun is None or not train else to_dicts(after)
    return as_outputs(outputs), next_state

  return Model(init, apply)


def _keeps_state(network: Any) -> bool:
  """Whether a layer, such as a batch norm, reads a state."""
  from equinox.nn import StateIndex

  def is_index(part: Any) -> bool:
    return isinstance(part, StateIndex)

  return any(map(is_index, jax.tree.leaves(network, is_leaf=is_index)))
