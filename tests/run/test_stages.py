"""Stages before the main part train the right leaves, and resume."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ckd_jax import data, models
from ckd_jax.configs import digits
from ckd_jax.methods import Model, Outputs
from ckd_jax.run import logger, stages
from ckd_jax.run.answers import Collected
from ckd_jax.run.context import assemble
from ckd_jax.run.plan import make_plan
from ckd_jax.run.programs import make_programs
from ckd_jax.run.record import Record
from ckd_jax.run.stopping import stoppable
from ckd_jax.step import make_mesh, make_step

pytestmark = pytest.mark.slow


def gated(num_classes: int) -> Model:
  """The maps of `cnn`; the last has a branch whose gate begins at zero."""
  shapes = {"first": (1, 16), "second": (16, 32), "branch": (32, 32)}
  shapes["fc"] = (32, num_classes)

  def init(key, images):
    keys = jax.random.split(key, len(shapes))
    params = {
      name: jax.random.normal(key, shape) / shape[0] ** 0.5
      for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return params | {"gate": jnp.zeros(32)}, {}

  def apply(params, state, images, *, train, key=None):
    first = images @ params["first"]
    second = first[:, ::2, ::2] @ params["second"]
    gate = params["gate"][None, None, None]
    third = second + gate * (second @ params["branch"])
    logits = third.mean((1, 2)) @ params["fc"]
    return Outputs(logits, maps=(first, second, third)), state

  return Model(init, apply)


def whole_stages(context, folder):
  with stoppable() as stop:
    return stages.run_stages(context, folder, Record({}), stop)


def prepare(name, student="cnn"):
  """A run of digits with the answers of a network that knows nothing."""
  config = digits.get_config(f"method={name},budget=40,batch_size=8")
  config.hyper.update(stage_epochs=2)
  config.student, config.teacher.name = student, "cnn"
  config.log_every, config.checkpoint_every = 1, 4
  dataset = data.load("digits")
  plan = make_plan(config, dataset)
  images = plan.inputs.astype(np.float32) / 255
  teacher = models.get("cnn", 10)

  @jax.jit
  def answer(images):
    weights = teacher.init(jax.random.key(5), images)
    return teacher.apply(*weights, images, train=False)[0]

  outputs = answer(images)
  said = Outputs(*jax.device_get(tuple(outputs)))
  answers = Collected((said,), teacher="noise")
  mesh = make_mesh(8)
  programs = make_programs(plan, mesh, None, make_step(plan.recipe))
  return assemble(plan, dataset, answers, programs, mesh)


def same(a, b) -> bool:
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_the_trunk_moves_and_the_classifier_does_not(tmp_path):
  context = prepare("ab")
  before = jax.device_get(context.state)
  after = jax.device_get(whole_stages(context, epath.Path(tmp_path)))
  student = after.params["student"]
  assert same(before.params["student"]["fc"], student["fc"])
  assert not same(before.params["student"]["conv1"], student["conv1"])
  assert not same(before.model, after.model)
  assert after.step == 0 and after.params["method"] == {}
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(after.optimizer))
  lines = logger.read_metrics(tmp_path / "metrics_stage_0.jsonl")
  assert [line["step"] for line in lines] == list(range(1, 9))


def test_what_is_reached_later_only_moves_too(tmp_path):
  """No gradient gets through a gate at zero, in the first step."""
  context = prepare("fsp", "tests.run.test_stages:gated")
  before = jax.device_get(context.stages[0].begin.params["student"])
  after = whole_stages(context, epath.Path(tmp_path)).params["student"]
  for name in ("first", "second", "gate", "branch"):
    assert not same(before[name], after[name]), name
  assert same(before["fc"], after["fc"])


def test_the_student_waits_while_the_paraphraser_learns(tmp_path):
  context = prepare("ft")
  before = jax.device_get((context.state, context.stages[0].begin))
  after = jax.device_get(whole_stages(context, epath.Path(tmp_path)))
  assert same(before[0].params["student"], after.params["student"])
  assert same(before[0].model, after.model)
  # Its place is now in the state: no gradient, no decay.
  assert jax.tree.structure(after) == jax.tree.structure(before[0])
  assert not same(before[0].method, after.method)
  assert same(before[0].params["method"], after.params["method"])


@pytest.mark.parametrize("name", ["ab", "ft"])
def test_an_interrupted_stage_ends_the_same(name, tmp_path, monkeypatch):
  whole = whole_stages(prepare(name), epath.Path(tmp_path / "whole"))
  training = logger.Display.training

  def stop(display, step, metrics):
    if step == 6:
      raise KeyboardInterrupt
    training(display, step, metrics)

  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(logger.Display, "training", stop)
    whole_stages(prepare(name), epath.Path(tmp_path / "cut"))
  again = whole_stages(prepare(name), epath.Path(tmp_path / "cut"))
  assert same(jax.device_get(whole), jax.device_get(again))
  lines = logger.read_metrics(tmp_path / "cut" / "metrics_stage_0.jsonl")
  assert [line["step"] for line in lines] == list(range(1, 9))
