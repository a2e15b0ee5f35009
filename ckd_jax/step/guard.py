"""A step whose numbers may turn out not to be finite."""

import jax
import jax.numpy as jnp

from ckd_jax.step.state import Examples, State
from ckd_jax.step.step import Step

SKIPPED = "skipped"  # the metric: 1 where the update was not applied


def guarded(step: Step, *, advance: bool) -> Step:
  """The same step, whose update is applied only if its numbers are finite.

  Args:
    step: from `make_step`.
    advance: whether a step that was not applied is counted as done; if not, the
      state stays for good what it was before the first such step.
  """

  def careful(state: State, examples: Examples, key: jax.Array):
    new, metrics = step(state, examples, key)
    fine = is_finite(metrics["loss"]) & is_sound(new)
    kept = jax.tree.map(lambda x, old: jnp.where(fine, x, old), new, state)
    if advance:
      kept = kept._replace(step=new.step)
    return kept, {**metrics, SKIPPED: 1.0 - fine}

  return careful


def is_sound(state: State) -> jax.Array:
  """Whether all that a gradient reaches is finite, bool.

  These are parameters, moments and batch statistics; a method's memories may
  hold what they want.
  """
  return is_finite((state.params, state.optimizer, state.model))


def is_finite(tree) -> jax.Array:
  """Whether every float of a tree is finite, bool."""
  found = [
    jnp.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]
  return jnp.stack(found).all() if found else jnp.bool_(True)
