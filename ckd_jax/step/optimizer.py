"""Optimizers, with SGD as in PyTorch, and learning-rate schedules."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

# The numbers of `schedule_hyper` that a schedule reads.
SCHEDULE_NUMBERS = {
  "constant": (),
  "cosine": ("warmup_fraction",),
  "plateau": ("patience", "levels", "max_epochs", "factor"),
  "step": ("milestones", "epochs", "factor"),
}
SCHEDULES = tuple(SCHEDULE_NUMBERS)


NAMES = ("adamw", "sgd")


def make(
  name: str, momentum: float, weight_decay: float, clip_norm: float = 0.0
) -> optax.GradientTransformation:
  """Gradients to directions; the learning rate is applied after it.

  Args:
    name: one of NAMES.
    momentum: of sgd; for adamw the decay of the first moment (beta 1).
    weight_decay: coefficient; sgd adds the term to the gradient, adamw to the
      direction.
    clip_norm: the longest gradient, all parameters together; a longer one is
      scaled down; 0 leaves all as they are.
  """
  rule = {"adamw": adamw, "sgd": sgd}[name](momentum, weight_decay)
  if not clip_norm:
    return rule
  return optax.chain(optax.clip_by_global_norm(clip_norm), rule)


def adamw(momentum: float, weight_decay: float) -> optax.GradientTransformation:
  """Adam with decoupled decay (arXiv 1711.05101); beta 2 is 0.999."""
  return optax.chain(
    optax.scale_by_adam(b1=momentum),
    optax.add_decayed_weights(weight_decay),
  )


def sgd(momentum: float, weight_decay: float) -> optax.GradientTransformation:
  """Momentum SGD with coupled L2 decay on every parameter (torch.optim.SGD).

  The learning rate is not part of it: PyTorch multiplies by the rate after the
  momentum buffer, so a change of rate does not rescale what was accumulated.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay), optax.trace(decay=momentum)
  )


def apply(params, updates, rate: jax.Array):
  """params - rate * updates."""
  return jax.tree.map(
    lambda p, u: p - rate.astype(p.dtype) * u, params, updates
  )


def schedule(
  name: str, learning_rate: float, steps: int, hyper
) -> Callable[[jax.Array], jax.Array]:
  """The rate at a step, before the plateau's level.

  Args:
    name: one of SCHEDULES.
    learning_rate: the highest rate of the schedule.
    steps: number of training steps.
    hyper: warmup_fraction of cosine; epochs, milestones and factor of step,
      whose milestones are epochs out of `epochs`, scaled to `steps`.

  Returns:
    A pure function of the step. constant and plateau are constant: the plateau
    lowers `State.level` instead, when the validation accuracy stands still.
  """
  if name == "cosine":
    warmup_steps = math.ceil(hyper.warmup_fraction * steps)
    return optax.warmup_cosine_decay_schedule(
      init_value=0.0,
      peak_value=learning_rate,
      warmup_steps=min(warmup_steps, steps - 1),
      decay_steps=steps,
    )
  if name == "step":
    boundaries = {
      round(milestone / hyper.epochs * steps): hyper.factor
      for milestone in hyper.milestones
    }
    return optax.piecewise_constant_schedule(learning_rate, boundaries)
  return lambda step: jnp.full((), learning_rate, jnp.float32)
