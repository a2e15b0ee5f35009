"""OKD: a teacher that adapts, and what must not move."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ckd_jax import methods
from ckd_jax.data import TokenView, vocabulary
from ckd_jax.methods import Task, _lora
from ckd_jax.models import linen
from ckd_jax.models.transformer import Transformer
from ckd_jax.step import Examples, Live, Recipe, init_state, make_step

ROWS, LENGTH = 8, 5
WORDS = vocabulary.Vocabulary("characters", tuple("abcd"))
VIEW = TokenView(WORDS, LENGTH, causal=True)


def network(width):
  shape = {"width": width, "depth": 2, "heads": 2, "causal": True}
  return linen.model(Transformer(WORDS.size, WORDS.size, LENGTH, **shape))


STUDENT, TEACHER = network(4), network(8)


@pytest.fixture(scope="module")
def examples():
  draw = np.random.default_rng(0)
  tokens = draw.integers(3, WORDS.size, (ROWS, LENGTH)).astype(np.int32)
  labels = draw.integers(2, WORDS.size, (ROWS, LENGTH)).astype(np.int32)
  labels[:3, 2:] = -1
  weights = TEACHER.init(jax.random.key(9), jnp.asarray(tokens))
  # A fresh network answers nearly evenly.
  weights = jax.tree.map(lambda x: 2 * x, weights)
  return Examples(jnp.asarray(tokens), jnp.asarray(labels), live=(weights,))


def started(method, examples, transform):
  task = Task(ROWS, WORDS.size, 4, 2, examples.labels)
  recipe = Recipe(
    method, STUDENT, task, VIEW, transform, lambda step: jnp.float32(0.05)
  )
  live = Live(TEACHER, examples.live, VIEW)
  state = init_state(jax.random.key(0), recipe, examples, live=live)
  return state, jax.jit(make_step(recipe, live=live))


def trained(examples, steps, transform=None, **hyper):
  method = methods.make("okd", **hyper)
  transform = transform or optax.scale_by_adam()
  state, step = started(method, examples, transform)
  metrics = []
  for _ in range(steps):
    state, found = step(state, examples, jax.random.key(1))
    metrics.append(found)
  return state, metrics


def test_an_adapter_begins_as_nothing(examples):
  weights = examples.live[0][0]
  factors = _lora.init(jax.random.key(0), weights, rank=3, blocks=2)
  assert len(factors) == 2 * 4  # qkv, out, up and down of two blocks
  assert {path.split("/")[0] for path in factors} == {"block_0", "block_1"}
  assert all(np.any(x["a"]) for x in factors.values())
  merged = _lora.apply(factors, weights)
  for one, other in zip(*map(jax.tree.leaves, (merged, weights)), strict=True):
    np.testing.assert_array_equal(one, other)


def test_merged_weights_are_the_same_function(examples):
  weights = examples.live[0][0]
  factors = _lora.init(jax.random.key(0), weights, rank=3, blocks=1)
  factors = jax.tree.map(lambda x: x + 0.1, factors)
  x = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
  kernel, change = "block_1/up/kernel", factors["block_1/up/kernel"]
  merged = _lora.apply(factors, weights)["block_1"]["up"]["kernel"]
  wanted = x @ weights["block_1"]["up"]["kernel"]
  wanted += 16 / 3 * (x @ change["a"]) @ change["b"]
  np.testing.assert_allclose(x @ merged, wanted, rtol=1e-4, atol=1e-5)
  assert kernel in factors
  untouched = _lora.apply(factors, weights)["block_0"]["up"]["kernel"]
  np.testing.assert_array_equal(untouched, weights["block_0"]["up"]["kernel"])


@pytest.mark.slow
def test_the_first_step_is_that_of_live_kd(examples):
  state, (metrics,) = trained(examples, 1)
  _, (still,) = trained(examples, 1, rate=0.0)
  for name in ("kd", "cross_entropy", "teacher_cross_entropy", "mutual"):
    assert metrics[name] == still[name]
  moved = jax.tree.leaves(state.params["method"])
  assert any(np.any(leaf) for leaf in moved)


@pytest.mark.slow  # compiles several steps
def test_a_rate_of_zero_is_live_kd_bit_for_bit(examples):
  transform = optax.chain(optax.clip_by_global_norm(0.1), optax.scale_by_adam())
  online, _ = trained(examples, 4, transform, rate=0.0)
  method = methods.make(
    "kd", temperature=1.0, cross_entropy_weight=0.5, kd_weight=0.5
  )
  state, step = started(method, examples, transform)
  for _ in range(4):
    state, _ = step(state, examples, jax.random.key(1))
  for one, other in zip(
    *(jax.tree.leaves(x.params["student"]) for x in (online, state)),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_teachers_part_learns_and_its_weights_stay(examples):
  before = jax.tree.map(np.array, examples.live)
  state, metrics = trained(examples, 30, rate=1.0, mutual_weight=0.0)
  assert (
    metrics[-1]["teacher_cross_entropy"]
    < metrics[0]["teacher_cross_entropy"] - 0.1
  )
  for one, other in zip(
    *map(jax.tree.leaves, (before, examples.live)), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  assert np.any(state.params["method"]["adapter"]["block_0/qkv/kernel"]["b"])


@pytest.mark.slow  # compiles several steps
def test_the_gradients_are_apart(examples):
  """dL_s/dphi = 0, dL_o/dtheta = 0: by terms of the loss."""

  def gradient(**hyper):
    keep = optax.GradientTransformation(
      lambda params: params, lambda g, s, p=None: (g, g)
    )
    state, _ = trained(examples, 1, keep, **hyper)
    return state.optimizer

  both, other = gradient(), gradient(mutual_weight=3.0)
  # The teacher's loss has changed, and what reaches the student has not.
  for one, same in zip(
    *(jax.tree.leaves(x["student"]) for x in (both, other)), strict=True
  ):
    np.testing.assert_array_equal(one, same)
  weighted = gradient(weight=0.0)
  for one, same in zip(
    *(jax.tree.leaves(x["method"]) for x in (both, weighted)), strict=True
  ):
    np.testing.assert_array_equal(one, same)
  assert any(
    not np.array_equal(*pair)
    for pair in zip(
      *(jax.tree.leaves(x["method"]) for x in (both, other)), strict=True
    )
  )


@pytest.mark.slow  # compiles several steps
def test_the_rate_scales_the_direction(examples):
  """Adam's first direction is a sign: a shorter gradient would be the same."""
  slow, _ = trained(examples, 1, rate=0.1)
  fast, _ = trained(examples, 1, rate=1.0)
  for one, other in zip(
    *(
      jax.tree.leaves(
        {k: v["b"] for k, v in x.params["method"]["adapter"].items()}
      )
      for x in (slow, fast)
    ),
    strict=True,
  ):
    np.testing.assert_allclose(one, 0.1 * np.asarray(other), rtol=1e-5)


def test_a_teacher_without_blocks_is_refused():
  with pytest.raises(ValueError, match="has no block_0"):
    _lora.init(
      jax.random.key(0), {"fc": {"kernel": jnp.ones((2, 2))}}, rank=1, blocks=1
    )


def test_ranges():
  with pytest.raises(ValueError, match="objective must be one of"):
    methods.make("okd", objective="skew_kl")
  with pytest.raises(ValueError, match="rank must be 1 or more"):
    methods.make("okd", rank=0)
