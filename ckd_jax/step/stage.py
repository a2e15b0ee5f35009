"""The step as it is during a stage of a method, and what a stage hands on."""

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
  """The recipe during a stage: its loss, at its constant learning rate."""
  return recipe._replace(
    method=recipe.method._replace(loss=stage.loss),
    schedule=lambda step: jnp.full((), stage.learning_rate, jnp.float32),
  )


def finish_stage(
  stage: Stage, state: State, transform: optax.GradientTransformation
) -> State:
  """The state after a stage: its heads passed on, moments and step at zero."""
  heads, memory = stage.finish(state.params["method"], state.method)
  params = {"student": state.params["student"], "method": heads}
  return state._replace(
    step=jnp.zeros_like(state.step),
    params=params,
    method=memory,
    optimizer=transform.init(params),
  )
