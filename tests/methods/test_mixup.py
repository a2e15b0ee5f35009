"""mixup: the blend, its loss by loops, its pairs, hazards."""

import jax
import numpy as np

from ckd_jax.methods.mixup import mixup
from tests.helpers.mixing import (
  check_hazards,
  check_loss,
  check_prepare,
  check_sample,
  make_batch,
)


def test_the_loss():
  check_loss("mixup", 2)


def test_the_blend():
  before, after = check_prepare("mixup", 2)
  lam = float(after.weights[0, 0])
  assert 0 < lam < 1
  blend = lam * before.inputs[:, 0] + (1 - lam) * before.inputs[:, 1]
  np.testing.assert_allclose(after.inputs[:, 0], blend, rtol=1e-4, atol=1e-5)


def test_lam_is_uniform_for_beta_1():
  batch = make_batch(2, rows=1, side=1)
  keys = jax.random.split(jax.random.key(0), 500)
  lam = np.sort(jax.vmap(lambda key: mixup(key, batch).weights[0, 0])(keys))
  # Kolmogorov and Smirnov: above 0.073 once in a hundred seeds.
  assert np.abs(lam - np.arange(500) / 500).max() < 0.073


def test_the_sample():
  check_sample("mixup", 2)


def test_hazards():
  check_hazards("mixup", 2)
