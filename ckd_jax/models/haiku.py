"""A transformed Haiku function as a `Model`."""

import inspect
from typing import Any

import jax

from ckd_jax.methods import Model, Outputs
from ckd_jax.models.plain import as_outputs


def model(network: Any) -> Model:
  """Wraps `haiku.transform_with_state(f)` or `haiku.transform(f)`.

  Args:
    network: its function takes float[n, h, w, c], normalised, or tokens
      int32[n, length], and perhaps `is_training`, and returns logits
      [n, classes] or `Outputs`.
      `haiku.without_apply_rng` may have been applied to it.
  """
  has_state = type(network).__name__ == "TransformedWithState"
  taken = inspect.signature(network.apply).parameters

  def mode(train: bool) -> dict[str, bool]:
    return {"is_training": train} if "is_training" in taken else {}

  def init(key: jax.Array, inputs: Any) -> tuple[dict, dict]:
    made = network.init(key, inputs, **mode(True))
    params, state = made if has_state else (made, {})
    return dict(params), dict(state)

  def apply(
    params: dict,
    state: dict,
    inputs: Any,
    *,
    train: bool,
    key: jax.Array | None = None,
  ) -> tuple[Outputs, dict]:
    trees = (params, state) if has_state else (params,)
    keys = (key,) if "rng" in taken else ()
    answer = network.apply(*trees, *keys, inputs, **mode(train))
    if not has_state:
      return as_outputs(answer), state
    answer, after = answer
    return as_outputs(answer), dict(after) if train else state

  return Model(init, apply)
