"""The step during a stage of a method, and the state after a stage."""

import jax.numpy as jnp
import optax

from ckd_jax.methods import Stage
from ckd_jax.step.state import State
from ckd_jax.step.step import Recipe

# In the optimizer's place: the next state's `optimizer` is the gradient itself.
KEEP_GRADIENT = optax.GradientTransformation(
  init=lambda params: params,
  update=lambda gradient, state, params=None: (gradient, gradient),
)


def staged(recipe: Recipe, stage: Stage) -> Recipe:
  """The recipe with the loss and the constant learning rate of a stage."""
  return recipe._replace(
    method=recipe.method._replace(loss=stage.loss),
    schedule=lambda step: jnp.full((), stage.learning_rate, jnp.float32),
  )


def finish_stage(
  stage: Stage, state: State, transform: optax.GradientTransformation
) -> State:
  """The state after a stage, with step and moments at zero.

  Args:
    stage: that ended; its `finish` passes heads and memories on.
    state: after its last step.
    transform: optimizer of what comes next.
  """
  heads, memory = stage.finish(state.params["method"], state.method)
  params = {"student": state.params["student"], "method": heads}
  return state._replace(
    step=jnp.zeros_like(state.step),
    params=params,
    method=memory,
    optimizer=transform.init(params),
  )
