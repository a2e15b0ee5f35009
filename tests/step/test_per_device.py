"""Batch norm of each device's images, against each share run alone."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ckd_jax import data, models
from ckd_jax.methods import Model, Outputs
from ckd_jax.run import programs, summary, train
from ckd_jax.run.plan import make_plan
from ckd_jax.step import State, make_mesh, per_device
from tests.helpers.arrays import draw
from tests.helpers.runs import QUICK, read


def leaves(*trees):
  return [jax.tree.leaves(tree) for tree in trees]


def test_each_share_has_its_own_statistics():
  mesh = make_mesh(16)
  assert mesh.shape["data"] == 4
  alone = models.get("cnn", 5)
  shared = per_device(alone, mesh)
  images, weight = draw(16, 8, 8, 3), draw(16, 5, seed=1)
  params, state = alone.init(jax.random.key(0), images[:1])
  parts = images.reshape(4, 4, 8, 8, 3)

  def loss(params, images, weight, model):
    outputs, after = model.apply(params, state, images, train=True)
    return jnp.sum(outputs.logits * weight), (outputs.logits, after)

  graded = jax.jit(
    jax.value_and_grad(loss, has_aux=True), static_argnames="model"
  )
  rows = NamedSharding(mesh, PartitionSpec("data"))
  (value, (logits, after)), grad = graded(
    params, jax.device_put(images, rows), weight, model=shared
  )
  each = [
    graded(params, part, own, model=alone)
    for part, own in zip(parts, weight.reshape(4, 4, 5), strict=True)
  ]
  close = dict(rtol=1e-4, atol=1e-5)
  values, outputs, states, grads = zip(
    *((value, *aux, grad) for (value, aux), grad in each), strict=True
  )
  np.testing.assert_allclose(value, sum(values), rtol=1e-4)
  np.testing.assert_allclose(logits, np.concatenate(outputs), **close)
  for mine, *theirs in zip(*leaves(after, *states), strict=True):
    np.testing.assert_allclose(mine, np.mean(theirs, axis=0), **close)
  for mine, *theirs in zip(*leaves(grad, *grads), strict=True):
    np.testing.assert_allclose(mine, np.sum(theirs, axis=0), **close)
  # The statistics of the whole batch are others.
  whole = graded(params, images, weight, model=alone)[0][1][0]
  assert np.abs(whole - logits).max() > 1e-2


def test_every_device_draws_its_own_dropout():
  def apply(params, state, images, *, train, key=None):
    noise = jax.random.uniform(key, (len(images), 1))
    return Outputs(noise), state

  model = Model(lambda key, images: ({}, {}), apply)
  shared = per_device(model, make_mesh(8))
  images, key = jnp.zeros((8, 2, 2, 1)), jax.random.key(0)
  outputs, _ = jax.jit(shared.apply, static_argnames="train")(
    {}, {}, images, train=True, key=key
  )
  assert len(np.unique(outputs.logits)) == 8


@pytest.mark.slow
def test_a_run_says_so_and_learns(tmp_path, capsys):
  arg = QUICK + "method=supervised"
  flags = ("--config.student=cnn", "--config.batch_norm=device")
  apart = train.run(read(*flags, arg=arg), tmp_path / "device")
  assert "of each device's 4 images alone" in capsys.readouterr().out
  whole = train.run(read(flags[0], arg=arg), tmp_path / "global")
  assert apart["params_sha256"] != whole["params_sha256"]
  assert "batch_norm" not in (tmp_path / "global/config.json").read_text()


def test_stages_have_statistics_of_each_device_too(monkeypatch):
  plan = make_plan(
    read(
      "--config.student=cnn",
      "--config.batch_norm=device",
      arg=QUICK + "method=ab",
    ),
    data.load("digits"),
  )
  marked, made = object(), []

  def make_step(recipe, **how):
    made.append(recipe.model.apply)
    return lambda state, examples, key: (state, {})

  monkeypatch.setattr(programs, "make_step", make_step)
  monkeypatch.setattr(
    programs, "per_device", lambda model, mesh: model._replace(apply=marked)
  )
  state = State(
    step=jnp.zeros((), jnp.int32),
    params={"student": jnp.zeros(2), "method": {}},
    model={},
    method=(),
    optimizer={"student": jnp.zeros(2), "method": {}},
    level=jnp.ones(()),
  )
  programs.make_phases(plan, make_mesh(16), None, state, (), jax.random.key(0))
  # What shows which parameters a loss reaches, and the step.
  assert made == [marked, marked]


def test_a_small_share_of_a_tpu_is_told():
  chip = types.SimpleNamespace(platform="tpu")
  mesh = types.SimpleNamespace(shape={"data": 2}, devices=np.array([chip]))
  context = types.SimpleNamespace(mesh=mesh, images_per_step=64)
  view = types.SimpleNamespace(kind="images")
  recipe = types.SimpleNamespace(view=view)
  plan = types.SimpleNamespace(batch_norm="global", recipe=recipe)
  ((name, text),) = summary._share(plan, context)
  assert name == "batch" and text.startswith("32 images a step on each chip")
  context.images_per_step = 256
  assert not summary._share(plan, context)
