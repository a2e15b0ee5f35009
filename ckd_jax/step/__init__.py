"""One pure training step, what feeds it, and what judges its student."""

from ckd_jax.step.step import (
  Examples,
  Live,
  State,
  capacity,
  forward,
  gather,
  init_state,
  make_gradients,
  make_step,
  make_update,
  pad,
  repeat,
  seen,
)

__all__ = [
  "Examples",
  "Live",
  "State",
  "capacity",
  "forward",
  "gather",
  "init_state",
  "make_gradients",
  "make_step",
  "make_update",
  "pad",
  "repeat",
  "seen",
]
