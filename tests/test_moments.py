"""Mean and variance of a batch: digits, gradients, one pass and two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax.numerics import moments
from tests.helpers.arrays import draw

compute = jax.jit(moments, static_argnums=1)


@pytest.mark.parametrize("mean", [0, 3, 100, 1000])
@pytest.mark.parametrize("shape", [(64, 8, 8, 5), (2048, 5)])
def test_two_passes_keep_the_digits_of_large_means(mean, shape):
  x = draw(*shape) + np.float32(mean)
  wide = x.reshape(-1, 5).astype(np.float64)
  found = compute(x, False)
  np.testing.assert_allclose(found[0], wide.mean(0), rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(found[1], wide.var(0), rtol=1e-5)


@pytest.mark.parametrize("mean", [0, 3, 100, 1000])
def test_one_pass_loses_less_than_bfloat16_has_lost(mean):
  exact = draw(128, 8, 8, 5) + np.float32(mean)
  x = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float32)
  wide = x.reshape(-1, 5).astype(np.float64)
  found = compute(x, True)
  np.testing.assert_allclose(found[0], wide.mean(0), rtol=1e-6, atol=1e-6)
  error = np.abs(found[1] - wide.var(0))
  assert error.max() < 1e-6 * (1 + mean**2)
  lost = np.square(x - exact).mean()  # by rounding to bfloat16
  assert error.max() < lost + 1e-6


def test_one_pass_is_never_negative():
  constants = np.linspace(1, 1000, 256, dtype=np.float32)
  x = np.broadcast_to(constants, (1000, 256))
  raw = jax.jit(
    lambda x: jnp.mean(jnp.square(x), 0) - jnp.square(jnp.mean(x, 0))
  )(x)
  assert np.asarray(raw).min() < -0.1  # by rounding
  assert np.asarray(compute(x, True)[1]).min() == 0


@pytest.mark.parametrize("one_pass", [False, True])
def test_gradient_is_that_of_the_formula(one_pass):
  x = draw(6, 3, 2, 4) + 3
  to_mean, to_var = draw(2, 4, seed=1)

  def loss(x):
    mean, var = moments(x, one_pass)
    return mean @ to_mean + var @ to_var

  count = x.size // 4
  centred = x - x.mean((0, 1, 2))
  expected = (to_mean + 2 * centred * to_var) / count
  grad = jax.jit(jax.grad(loss))(jnp.asarray(x))
  np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)
  # Forward mode, too, and several at once.
  _, slope = jax.jvp(loss, (jnp.asarray(x),), (jnp.asarray(expected),))
  np.testing.assert_allclose(slope, np.square(expected).sum(), rtol=1e-4)
  many = jax.vmap(jax.grad(loss))(jnp.stack([x, x[::-1]]))
  np.testing.assert_allclose(many[1], expected[::-1], rtol=1e-4, atol=1e-6)
