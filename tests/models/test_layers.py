"""The layers against NumPy, written from PyTorch's documentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax.models import layers
from ckd_jax.models.layers import BatchNorm, Conv, Linear, shuffle
from ckd_jax.numerics import moments
from tests.helpers.arrays import draw


def _norm(x, train=True, **stats):
  """Runs a BatchNorm with weight 1..c and bias 0, -1, ...."""
  channels = x.shape[-1]
  params = {"weight": jnp.arange(1.0, channels + 1), "bias": -jnp.arange(3.0)}
  state = {
    "running_mean": jnp.full(channels, 0.5),
    "running_var": jnp.full(channels, 2.0),
  } | stats
  variables = {"params": params, "state": state}
  apply = jax.jit(BatchNorm().apply, static_argnames=("train", "mutable"))
  return apply(variables, x, train=train, mutable=("state",))


def test_batch_norm_uses_biased_and_keeps_unbiased_variance():
  x = np.random.default_rng(0).normal(2, 3, (4, 3, 2, 3)).astype(np.float32)
  y, updates = _norm(x)
  rows = x.reshape(-1, 3).astype(np.float64)
  mean, biased = rows.mean(0), rows.var(0)
  expected = (x - mean) / np.sqrt(biased + 1e-5) * [1, 2, 3] + [0, -1, -2]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  kept = updates["state"]
  np.testing.assert_allclose(kept["running_mean"], 0.45 + 0.1 * mean, 1e-5)
  unbiased = rows.var(0, ddof=1)
  np.testing.assert_allclose(kept["running_var"], 1.8 + 0.1 * unbiased, 1e-5)


def test_batch_norm_in_eval_mode_uses_the_running_statistics():
  x = np.ones((2, 1, 1, 3), np.float32)
  y, updates = _norm(x, train=False)
  expected = 0.5 / np.sqrt(2 + 1e-5) * np.array([1, 2, 3]) + [0, -1, -2]
  np.testing.assert_allclose(y, np.broadcast_to(expected, x.shape), 1e-6)
  np.testing.assert_array_equal(updates["state"]["running_var"], np.full(3, 2))


def test_batch_norm_survives_a_mean_far_from_zero():
  x = np.random.default_rng(0).normal(1000, 1, (8, 4, 4, 3)).astype(np.float32)
  y, _ = _norm(x)
  wide = x.astype(np.float64)
  normal = (wide - wide.mean((0, 1, 2))) / wide.std((0, 1, 2))
  np.testing.assert_allclose(y, normal * [1, 2, 3] - [0, 1, 2], atol=1e-3)


@pytest.mark.parametrize("dtype, passes", [(jnp.bfloat16, 1), (jnp.float32, 2)])
def test_batch_norm_reads_bfloat16_once(dtype, passes, monkeypatch):
  asked = []

  def spy(x, one_pass):
    asked.append(1 if one_pass else 2)
    return moments(x, one_pass)

  monkeypatch.setattr(layers, "moments", spy)
  x = draw(4, 2, 2, 3).astype(dtype)
  y, _ = BatchNorm().init_with_output(jax.random.key(0), x, train=True)
  assert asked == [passes] and y.dtype == dtype


def test_batch_norm_of_one_value_is_finite():
  y, updates = _norm(np.ones((1, 1, 1, 3), np.float32))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, updates)))


def test_batch_norm_gradient_follows_differences():
  rng = np.random.default_rng(0)
  x, ahead, weight = rng.normal(size=(3, 4, 2, 2, 3)).astype(np.float32)

  def loss(x):
    rows = x.reshape(-1, 3)
    normal = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    return (normal * [1, 2, 3] * weight.reshape(-1, 3)).sum()

  step = 1e-5 * ahead.astype(np.float64)
  slope = (loss(x + step) - loss(x - step)) / 2e-5
  grad = jax.grad(lambda x: jnp.sum(_norm(x)[0] * weight))(jnp.asarray(x))
  np.testing.assert_allclose(jnp.sum(grad * ahead), slope, rtol=1e-4)


def test_batch_norm_of_a_sharded_batch_sees_the_whole_batch():
  mesh = jax.make_mesh(
    (4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.NamedSharding(mesh, jax.P("batch"))
  x = draw(8, 2, 2, 3)
  whole, cut = _norm(x), _norm(jax.device_put(x, sharding))
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_convolution_pads_both_sides_at_stride_2(size):
  x = draw(1, size, size, 2)
  weight = draw(3, 3, 2, 4, seed=1)
  y = Conv(4, stride=2).apply({"params": {"weight": weight}}, jnp.asarray(x))
  padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
  expected = [
    [
      np.einsum("ijk,ijkl->l", padded[i : i + 3, j : j + 3], weight)
      for j in range(0, size, 2)
    ]
    for i in range(0, size, 2)
  ]
  np.testing.assert_allclose(y[0], expected, rtol=1e-4, atol=1e-5)


def test_initial_scales():
  key, image = jax.random.key(0), jnp.zeros((1, 4, 4, 64))
  weight = Conv(128).init(key, image)["params"]["weight"]
  np.testing.assert_allclose(np.std(weight), (2 / (9 * 128)) ** 0.5, rtol=0.02)
  linear = Linear(256).init(key, jnp.zeros((1, 64)))["params"]
  for leaf in linear.values():  # uniform within 1 / sqrt(64)
    np.testing.assert_allclose(np.abs(leaf).max(), 0.125, rtol=0.02)
    np.testing.assert_allclose(np.std(leaf), 0.125 / 3**0.5, rtol=0.1)


def test_shuffle_deals_out():
  x = jnp.arange(6).reshape(1, 1, 1, 6)
  assert shuffle(x, 3).ravel().tolist() == [0, 2, 4, 1, 3, 5]
