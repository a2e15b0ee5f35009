"""What is compiled ahead is given what a run gives: the same shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import ahead, data
from ckd_jax import config as configuration
from ckd_jax.ahead import compiling, shapes, targets
from ckd_jax.ahead.chips import CHIPS
from ckd_jax.methods import Outputs
from ckd_jax.run.answers import Collected
from ckd_jax.run.context import assemble
from ckd_jax.run.plan import make_plan
from ckd_jax.run.programs import make_programs
from ckd_jax.step import make_batch_sharder, make_mesh, make_step


def here() -> targets.Target:
  """The devices of this machine in a target's place."""
  return targets.Target("here", CHIPS["v5e"], jax.devices())


def plan_of(method: str, **keys):
  config = configuration.get_config(
    "digits", method=method, budget=60, batch_size=8, student="cnn", **keys
  )
  config.teacher.name = "cnn"
  dataset = data.load("digits")
  return make_plan(config, dataset), dataset


def described(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)


@pytest.mark.parametrize("method", ["kd", "crd", "fitnet", "supervised"])
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_arguments_are_those_of_a_run(method, placement):
  plan, dataset = plan_of(method, **{"dataset.placement": placement})
  expected, live = ahead.expected(plan)
  assert live is None
  made = ahead.launch(plan, here(), expected, times=1)
  outputs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), expected)
  mesh = make_mesh(8)
  step = make_step(plan.recipe, shard=make_batch_sharder(mesh))
  programs = make_programs(plan, mesh, None, step)
  context = assemble(
    plan, dataset, Collected(outputs, teacher="zeros"), programs, mesh
  )
  assert made.images == context.images_per_step
  examples = context.examples
  if context.feed:
    examples = next(context.feed(context.key, context.state.method, 0))
  given = (context.state, examples, context.key)
  assert described(tuple(made.given)) == described(given)
  assert made.mesh == mesh


def test_tables_are_named():
  plan, _ = plan_of("fitnet")
  made = ahead.launch(plan, here(), ahead.expected(plan)[0], times=1)
  named = {"inputs", "teachers.0.logits", "teachers.0.maps.0"}
  assert named <= set(made.tables)
  rows = plan.recipe.task.num_examples
  logits = made.tables["teachers.0.logits"]
  assert logits.shape[1:] == (10,)  # without what pads them to 128
  assert logits.shape[0] >= rows and logits.dtype == np.float16


def test_a_live_teacher_is_a_part_of_the_program():
  plan, _ = plan_of("kd", **{"teacher.live": True})
  outputs, live = ahead.expected(plan)
  assert outputs == () and live is not None
  made = ahead.launch(plan, here(), outputs, live=live, times=1)
  assert jax.tree.leaves(made.given.examples.live)
  assert not made.given.examples.teachers


@pytest.mark.slow
def test_figures_of_this_machine():
  """All of the way on a compiler that is always here; it estimates nothing."""
  plan, _ = plan_of("kd")
  place = here()
  made = ahead.launch(plan, place, ahead.expected(plan)[0], times=2)
  built = ahead.compiled(made.function, made.given, place)
  found = ahead.figures(ahead.read(built.text, made.tables), made, built, place)
  assert found["devices"] == 4 and found["steps"] == 2
  assert found["images"] == 8 and found["host"] == []
  assert found["collectives"]["all-reduce"]["count"] > 0
  assert found["roofline"]["operations"] > 1e4
  assert found["float64"] == 0
  assert 0 < found["tables"] < found["memory"]["arguments"]


def test_a_method_alone():
  plan, _ = plan_of("crd")
  made = ahead.launch(plan, here(), ahead.expected(plan)[0], times=1)
  alone = ahead.part(plan, made, "loss")
  values = jax.tree.map(
    lambda x: (
      jnp.zeros(x.shape, x.dtype)
      if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
      else jax.random.key(0)
    ),
    alone.given,
  )
  (heads, outputs), memory, *_ = alone.function(*values)
  assert jax.tree.map(jnp.shape, heads) == jax.tree.map(
    jnp.shape, made.given.state.params["method"]
  )
  assert isinstance(outputs, Outputs)
  assert jax.tree.map(jnp.shape, memory) == jax.tree.map(
    jnp.shape, made.given.state.method
  )


def test_a_batch_that_the_devices_do_not_divide():
  """As a run: on one host the largest divisor."""
  plan, _ = plan_of("kd")
  task = plan.recipe.task._replace(batch_size=6)
  plan = plan._replace(recipe=plan.recipe._replace(task=task))
  made = ahead.launch(plan, here(), ahead.expected(plan)[0])
  assert made.mesh.size == 3
  assert made.times == 1  # a CPU's launch


def test_out_of_memory_of_a_compiler_is_told(monkeypatch):
  class Refusing:
    def lower(self, *given):
      return self

    def compile(self, compiler_options):
      raise jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used "
        "20.51G of 15.75G hbm. Exceeded hbm capacity by 4.76G."
      )

  with pytest.raises(compiling.TooLarge, match=r"20\.51G of 15\.75G"):
    ahead.compiled(Refusing(), (), here())
  assert shapes.Arguments._fields == ("state", "examples", "key")
