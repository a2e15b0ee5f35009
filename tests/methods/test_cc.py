"""CC: the recorded values, a loop over neighbours, both heads, hazards."""

import itertools

import jax
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.cc import correlation_congruence
from tests.helpers.arrays import draw
from tests.helpers.dtypes import every_dtype
from tests.helpers.relational import (
  batch_of,
  follows,
  stays_finite,
)


def reference(student, teacher):
  gap = np.abs(student.astype(np.float64) - teacher)
  neighbours = itertools.pairwise(gap)
  return np.mean([np.sum(a * b) for a, b in neighbours])


def test_it_follows_the_public_implementation(golden):
  inputs = "f_s", "f_t"
  follows(correlation_congruence, golden / "losses/cc.npz", inputs)


@pytest.mark.parametrize("shape", [(6, 5), (2, 5), (4, 2, 3)])
def test_the_formula_and_its_gradient(shape):
  student, teacher = draw(*shape), draw(*shape, seed=1)
  value, gradient = jax.jit(jax.value_and_grad(correlation_congruence))(
    student, teacher
  )
  np.testing.assert_allclose(value, reference(student, teacher), rtol=1e-5)
  gap = np.abs(student - teacher)
  padded = np.concatenate([0 * gap[:1], gap, 0 * gap[:1]])
  slope = np.sign(student - teacher) * (padded[:-2] + padded[2:])
  np.testing.assert_allclose(
    gradient, slope / (shape[0] - 1), rtol=1e-5, atol=1e-6
  )


def test_one_example_has_no_neighbour():
  value, gradient = jax.jit(jax.value_and_grad(correlation_congruence))(
    draw(1, 5), draw(1, 5, seed=1)
  )
  assert value == 0 and not gradient.any()


def test_the_teacher_of_this_loss_is_a_trained_head():
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  of_student, of_teacher = jax.jit(
    jax.grad(correlation_congruence, argnums=(0, 1))
  )(student, teacher)
  np.testing.assert_array_equal(of_teacher, -of_student)
  assert np.abs(of_teacher).max() > 0


@every_dtype
def test_hazards(dtype):
  stays_finite(correlation_congruence, dtype)


def test_the_method_trains_both_heads_but_not_the_teacher():
  student, batch = batch_of(dim=7)
  narrow = student._replace(embedding=student.embedding[..., :3])
  method = methods.make("cc", weight=0.5)
  params, state = method.init(jax.random.key(0), None, narrow, *batch.teachers)
  assert params["student"]["weight"].shape == (3, 128)
  assert params["teacher"]["weight"].shape == (7, 128)

  def loss(params, teachers):
    batch_ = batch._replace(teachers=teachers)
    return method.loss(params, state, narrow, batch_, None, 0)

  (value, (_, metrics)), (of_params, of_teachers) = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  )(params, batch.teachers)

  def head(name, x):
    weight, bias = (np.asarray(params[name][k]) for k in ("weight", "bias"))
    return x @ weight + bias

  own = reference(
    head("student", np.asarray(narrow.embedding[:, 0])),
    head("teacher", np.asarray(batch.teachers[0].embedding[:, 0])),
  )
  np.testing.assert_allclose(metrics["cc"], own, rtol=1e-5)
  total = 0.5 * own + metrics["cross_entropy"]
  np.testing.assert_allclose(value, total, rtol=1e-5)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(of_params))
  assert not any(leaf.any() for leaf in jax.tree.leaves(of_teachers))
  assert methods.defaults("cc")["weight"] == 0.02
