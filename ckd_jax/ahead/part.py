"""A method's own part of a step: all of it but the student."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ckd_jax.ahead.compiling import Launch
from ckd_jax.ahead.shapes import on
from ckd_jax.methods import Outputs
from ckd_jax.run.plan import Plan
from ckd_jax.step import forward, gather, replicated, runtime_task


def part(plan: Plan, made: Launch, which: str) -> Launch:
  """Sampling, answers from the table, mixing, loss, gradients and memories.

  The student's outputs are an argument, and the gradient goes to them and to
  the method's heads.

  Args:
    plan: what the run will do.
    made: its launch, for the shapes of all else.
    which: "loss", or "stage 1" for the loss of the first stage.
  """
  method = plan.method
  loss = method.loss
  if which != "loss":
    loss = method.stages[int(which.removeprefix("stage ")) - 1].loss
  state, examples, key = made.given
  everywhere = replicated(made.mesh)
  rows = NamedSharding(made.mesh, PartitionSpec("data"))

  def batch_of(key, memory, examples, images):
    task = runtime_task(plan.recipe.task, examples)
    index = method.sample(key, jnp.int32(0), task, memory)
    bare = examples._replace(index=index, images=images)
    return method.prepare(key, gather(bare, index))

  def own(params, memory, outputs, examples, key, images):
    batch = batch_of(key, memory, examples, images)
    # Answers count as given, as in a step; what is mixed is a result.
    batch = jax.lax.with_sharding_constraint(batch, rows)

    def objective(params, outputs):
      value, (memory_after, metrics) = loss(
        params, memory, outputs, batch, key, jnp.int32(0)
      )
      return value, (memory_after, metrics)

    gradient, (memory_after, metrics) = jax.grad(
      objective, argnums=(0, 1), has_aux=True
    )(params, outputs)
    mixed = () if batch.weights is None else batch.images
    return gradient, memory_after, metrics, mixed

  index = jax.eval_shape(
    lambda key, state: method.sample(
      key, jnp.int32(0), plan.recipe.task, state.method
    ),
    key,
    state,
  )
  images = jax.ShapeDtypeStruct(
    (*index.shape, *plan.images.shape[1:]), jnp.float32
  )
  seen = jax.eval_shape(batch_of, key, state.method, examples, images)
  shown = jax.eval_shape(
    lambda params, model, images: forward(
      plan.recipe.model, params, model, images, method.passes
    )[0],
    state.params["student"],
    state.model,
    seen.images,
  )
  # Of what is not compared the gradient would be zeros, written out.
  read = {"logits", *method.needs}
  outputs = Outputs(**{field: getattr(shown, field) for field in read})
  given = (
    state.params["method"],
    state.method,
    on(outputs, rows),
    examples,
    key,
    on(images, rows),
  )
  function = jax.jit(
    own,
    donate_argnums=1,
    out_shardings=((everywhere, rows), everywhere, everywhere, rows),
  )
  return made._replace(function=function, given=given, step=own, times=1)
