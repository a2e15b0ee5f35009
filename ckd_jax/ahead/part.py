"""A method's own part of a step: all of it but the student."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ckd_jax.ahead.compiling import Launch
from ckd_jax.ahead.shapes import Arguments, batch_of, on
from ckd_jax.data import shown
from ckd_jax.methods import Batch, Outputs
from ckd_jax.run import Plan
from ckd_jax.step import Examples, forward, gather, replicated, runtime_task


def part(plan: Plan, made: Launch, which: str) -> Launch:
  """Sampling, answers from the table, mixing, loss, gradients and memories.

  The student's outputs are an argument, and the gradient goes to them and to
  the method's heads.

  Args:
    plan: what the run will do.
    made: its launch, for the shapes of all else.
    which: "loss", or "stage 1" for the loss of the first stage, of a launch
      before which no stage is finished.
  """
  loss = plan.method.loss
  if which != "loss":
    loss = plan.method.stages[int(which.removeprefix("stage ")) - 1].loss
  everywhere = replicated(made.mesh)
  rows = NamedSharding(made.mesh, PartitionSpec("data"))

  def own(params, memory, outputs, examples, key, inputs):
    batch = _batch(plan, key, memory, examples, inputs)
    batch = jax.lax.with_sharding_constraint(batch, rows)

    def objective(params, outputs):
      return loss(params, memory, outputs, batch, key, jnp.int32(0))

    gradient, (memory_after, metrics) = jax.grad(
      objective, argnums=(0, 1), has_aux=True
    )(params, outputs)
    mixed = () if batch.weights is None else batch.inputs
    return gradient, memory_after, metrics, mixed

  state, examples, key = made.given
  inputs, outputs = _shown(plan, made.given)
  return made._replace(
    function=jax.jit(
      own,
      donate_argnums=1,
      out_shardings=((everywhere, rows), everywhere, everywhere, rows),
    ),
    given=(
      state.params["method"],
      state.method,
      on(outputs, rows),
      examples,
      key,
      on(inputs, rows),
    ),
    step=own,
    times=1,
  )


def _batch(plan: Plan, key, memory, examples: Examples, inputs) -> Batch:
  """What is compared in the first step, of inputs that are drawn already."""
  task = runtime_task(plan.recipe.task, examples)
  index = plan.method.sample(key, jnp.int32(0), task, memory)
  drawn = gather(examples._replace(index=index, inputs=inputs), index)
  batch = plan.method.prepare(key, drawn)
  return batch._replace(teachers=jax.lax.stop_gradient(batch.teachers))


def _shown(plan: Plan, given: Arguments) -> tuple[Any, Outputs]:
  """Shapes of the inputs of a batch, and of what the student makes of it."""
  state, examples, key = given
  index = jax.eval_shape(
    lambda key, memory: plan.method.sample(
      key, jnp.int32(0), plan.recipe.task, memory
    ),
    key,
    state.method,
  )
  inputs = batch_of(shown(plan.recipe.view), index.shape)
  outputs = jax.eval_shape(
    lambda key, state, examples, inputs: forward(
      plan.recipe.model,
      state.params["student"],
      state.model,
      _batch(plan, key, state.method, examples, inputs).inputs,
      plan.method.passes,
    )[0],
    key,
    state,
    examples,
    inputs,
  )
  # Of what is not compared the gradient would be zeros, written out.
  read = {"logits", *plan.method.needs}
  if plan.method.branches != "none":
    read.add("branches")
  return inputs, Outputs(**{field: getattr(outputs, field) for field in read})
