"""The shared numerics against float64, and on inputs where they stay finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import numerics
from tests.helpers import arrays
from tests.helpers.arrays import log_softmax

draw = functools.partial(arrays.draw, scale=3.0)


def kl(teacher, student):
  p, q = log_softmax(teacher), log_softmax(student)
  return (np.exp(p) * (p - q)).sum(-1)


def test_kl_is_the_textbook_sum():
  teacher, student = draw(4, 3, 10), draw(4, 3, 10, seed=1)
  value = jax.jit(numerics.kl_divergence)(*numerics.float32(teacher, student))
  np.testing.assert_allclose(value, kl(teacher, student), rtol=1e-5)


def test_kl_of_equals_is_zero_and_of_others_positive():
  x, y = numerics.float32(draw(20, 7), draw(20, 7, seed=1))
  assert np.abs(numerics.kl_divergence(x, x)).max() == 0
  assert numerics.kl_divergence(x, y).min() > 0


def test_a_class_ruled_out_leaves_the_sum_over_the_rest():
  teacher, student = draw(2, 6), draw(2, 6, seed=1)
  expected = kl(teacher[:, :4], student[:, :4]) - (
    # the student's probability of the four classes that are possible
    np.log(np.exp(log_softmax(student))[:, :4].sum(-1))
  )
  teacher[:, 4:] = -np.inf
  teacher, student = numerics.float32(teacher, student)
  value = numerics.kl_divergence(teacher, student)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  by_both = jax.jit(
    jax.grad(lambda t, s: numerics.kl_divergence(t, s).sum(), argnums=(0, 1))
  )(teacher, student)
  assert all(np.isfinite(gradient).all() for gradient in by_both)
  assert (by_both[0][:, 4:] == 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_kl_of_huge_logits_is_their_gap(size):
  teacher, student = jnp.array([[size, -size]]), jnp.array([[-size, size]])
  value, gradient = jax.jit(
    jax.value_and_grad(lambda s: numerics.kl_divergence(teacher, s)[0])
  )(student)
  np.testing.assert_allclose(value, 2 * size, rtol=1e-6)
  np.testing.assert_allclose(gradient, [[-1.0, 1.0]], rtol=1e-6)


def test_gradients_agree_with_finite_differences():
  teacher, student = numerics.float32(draw(2, 5), draw(2, 5, seed=1))
  check_grads(
    numerics.kl_divergence, (teacher, student), 1, ["rev"], 2e-2, 2e-2
  )
  check_grads(
    lambda x: numerics.cross_entropy(x, jnp.array([1, 4])),
    (student,),
    1,
    ["rev"],
    2e-2,
    2e-2,
  )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_cross_entropy_is_minus_the_log_probability(dtype):
  logits = jnp.asarray(draw(3, 2, 9), dtype)
  labels = np.random.default_rng(1).integers(9, size=(3, 2))
  value = numerics.cross_entropy(logits, jnp.asarray(labels))
  table = log_softmax(np.asarray(logits, np.float64))
  expected = [[-table[i, j, labels[i, j]] for j in range(2)] for i in range(3)]
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_constant_stops_the_gradient_and_both_give_float32():
  half = jnp.ones(3, jnp.bfloat16)
  (kept,), (stopped,) = numerics.float32(half), numerics.constant(half)
  assert kept.dtype == stopped.dtype == jnp.float32
  gradient = jax.jit(jax.grad(lambda x: numerics.constant(x)[0].sum()))(half)
  assert (gradient == 0).all()
  gradient = jax.jit(jax.grad(lambda x: numerics.float32(x)[0].sum()))(half)
  assert (gradient == 1).all()


def test_gram_has_every_derivative():
  x = draw(2, 4, 3)
  weight = draw(2, 4, 4, seed=1)

  def plain(x):
    return jnp.sum(weight * jnp.square(jnp.matmul(x, x.mT)))

  def ours(x):
    return jnp.sum(weight * jnp.square(numerics.gram(x)))

  direction = np.ones_like(x)
  for derive in (
    jax.grad,
    lambda f: lambda x: jax.jvp(f, (x,), (direction,))[1],
    lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (direction,))[1],
    lambda f: lambda x: jax.vmap(jax.grad(lambda y: f(y[None])))(x),
  ):
    expected = jax.jit(derive(plain))(x)
    np.testing.assert_allclose(
      jax.jit(derive(ours))(x), expected, rtol=1e-4, atol=1e-3
    )


def test_gram_goes_back_by_one_product():
  x = jnp.ones((4, 3))
  text = str(jax.make_jaxpr(jax.grad(lambda x: numerics.gram(x)[0, 1]))(x))
  assert text.count("dot_general") == 2
