"""The initial state of training."""

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.data import shown
from ckd_jax.methods import Outputs
from ckd_jax.step.rows import take_rows
from ckd_jax.step.state import Examples, Live, State, runtime_task
from ckd_jax.step.step import Recipe


def init_state(
  key: jax.Array,
  recipe: Recipe,
  examples: Examples,
  *,
  live: Live | None = None,
) -> State:
  """The state before the first step.

  Args:
    key: random key for the student's weights and the method's initial values.
    recipe: the parts of a step.
    examples: the table; only shapes count.
    live: teachers that answer inside the step; None where the table does.

  Raises:
    ValueError: the student has another number of logits than there are classes.
  """
  model, task = recipe.model, recipe.task
  model_key, method_key = jax.random.split(key)
  # Zeros: only the shape counts, and the group's size is 1 or more.
  inputs = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), shown(recipe.view)
  )
  params, model_state = model.init(model_key, inputs)

  def sample_of(network, params, state):
    outputs = jax.eval_shape(
      lambda inputs: network.apply(params, state, inputs, train=False)[0],
      inputs,
    )
    return jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), outputs)

  student = sample_of(model, params, model_state)
  if student.logits.shape[-1] != task.num_classes:
    raise ValueError(
      f"the student has {student.logits.shape[-1]} logits and there are "
      f"{task.num_classes} classes"
    )
  if live is not None:
    teacher = sample_of(live.model, *examples.live[0])
  elif examples.teachers:
    teacher = take_rows(examples.teachers[0], np.zeros((1, 1), np.int32))
  else:
    teacher = Outputs(jnp.zeros_like(student.logits))
  method_params, method_state = recipe.method.init(
    method_key, runtime_task(task, examples), student, teacher
  )
  adapter = recipe.method.adapter
  if adapter is not None and live is not None:
    adapted = adapter.init(method_key, examples.live[0][0])
    method_params = {**method_params, "adapter": adapted}
  params = {"student": params, "method": method_params}
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model=model_state,
    method=method_state,
    optimizer=recipe.transform.init(params),
    level=jnp.ones((), jnp.float32),
  )
