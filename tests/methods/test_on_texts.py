"""The contract of every method that works on texts: steps of a transformer."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from ckd_jax import methods, models
from ckd_jax.methods import Task
from ckd_jax.models.transformer import Transformer
from ckd_jax.step import (
  Examples,
  Recipe,
  finish_stage,
  init_state,
  make_batch_sharder,
  make_step,
  optimizer,
)
from tests.helpers.texts import LENGTH, VIEW, tokens

CLASSES, ROWS, BATCH = 5, 24, 8
GIVEN = frozenset({"logits", "embedding"})  # what a transformer outputs
QUICK = ("kd", "mixkd")
HYPER = {
  "ckd": {"max_groups": 200},
  "ckd_features": {"features": "cc", "max_groups": 200},
  "crd": {"negatives": 16},
  "rrd": {"rows": 16},
}
NAMES = [
  name
  for name in methods.names()
  if (made := methods.make(name, **HYPER.get(name, {}))).needs <= GIVEN
  and made.inputs in ("any", "texts")
  and made.answers in ("any", "rows")
  and made.branches != "ensemble"  # no transformer has one
]


class Case(NamedTuple):
  recipe: Recipe
  examples: Examples
  state: object  # before the first step
  step: object  # jitted
  traces: list


@functools.cache
def network():
  """A student for texts of up to two tokens more than there are."""
  size = {"width": 8, "depth": 1, "heads": 2, "length": LENGTH + 2}
  return models.as_model(
    Transformer(CLASSES, vocabulary=VIEW.vocabulary.size, **size)
  )


@pytest.fixture(
  scope="module",
  params=[
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in NAMES
  ],
)
def case(request) -> Case:
  name = request.param
  method = methods.make(name, **HYPER.get(name, {}))
  rows = tokens(ROWS)
  labels = np.arange(ROWS, dtype=np.int32) % CLASSES
  teacher, tell = network(), jax.jit(network().apply, static_argnames="train")
  weights = teacher.init(jax.random.key(7), rows[:1])
  answers, _ = tell(*weights, rows, train=False)
  several = method.branches != "none"
  model = models.cohort([teacher, teacher]) if several else teacher
  fields = {x: getattr(answers, x) for x in method.needs | {"logits"}}
  teachers = (answers._replace(embedding=None)._replace(**fields),)
  recipe = Recipe(
    method,
    model,
    task=Task(ROWS, CLASSES, BATCH, ROWS // BATCH, labels, "texts"),
    view=VIEW,
    transform=optimizer.make("adamw", 0.9, 0.0, 0.0),
    schedule=lambda step: jnp.float32(0.01),
  )
  examples = Examples(rows, labels, teachers if method.needs else ())
  state = jax.jit(lambda key: init_state(key, recipe, examples))(
    jax.random.key(3)
  )
  for stage in method.stages:
    state = finish_stage(stage, state, recipe.transform)
  step, traces = make_step(recipe), []

  @jax.jit
  def counted(state, examples):
    traces.append(None)
    return step(state, examples, jax.random.key(5))

  return Case(recipe, examples, state, counted, traces)


def embed(state) -> np.ndarray:
  found, *_ = (
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    if "'embed'" in jax.tree_util.keystr(path)
  )
  return np.asarray(found)


def test_steps_on_tokens(case):
  """Finite, traced once, and felt by the words that were seen alone."""
  state, first = case.state, embed(case.state)
  for _ in range(3):
    state, metrics = case.step(state, case.examples)
    chex.assert_tree_all_finite((metrics, state.params))
  assert len(case.traces) == 1
  moved = np.abs(embed(state) - first).max(1) > 0
  seen = np.unique(case.examples.inputs)
  assert moved[seen[seen > 0]].all()
  assert not moved[0]  # padding is no word


@pytest.mark.slow  # compiles the step once more
def test_padding_changes_nothing(case):
  padded = case.examples._replace(
    inputs=np.pad(case.examples.inputs, [(0, 0), (0, 2)])
  )
  (one, metrics), (other, same) = (
    case.step(case.state, x) for x in (case.examples, padded)
  )
  close(metrics, same)
  close(one.method, other.method)


@pytest.mark.slow  # compiles the step once more
def test_four_devices_give_the_numbers_of_one(case):
  mesh = jax.make_mesh(
    (1, 4), ("students", "data"), axis_types=(AxisType.Auto,) * 2
  )
  step = make_step(case.recipe, shard=make_batch_sharder(mesh))
  _, metrics = jax.jit(step)(case.state, case.examples, jax.random.key(5))
  close(case.step(case.state, case.examples)[1], metrics)


def close(one, other) -> None:
  for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_those_that_are_refused():
  """Every method steps here, or is one of pixels, maps, words or branches."""
  others = set(methods.names()) - set(NAMES)
  assert {"mixup", "cutmix", "r2kd", "at", "fitnet"} <= others
  for name in others:
    made = methods.make(name)
    of_words = made.answers == "positions"
    elsewhere = of_words or made.branches == "ensemble"
    assert made.inputs == "images" or made.needs - GIVEN or elsewhere, name
  assert set(methods.working_with(GIVEN, "texts")) <= set(NAMES)
