"""Labels alone: cross-entropy by hand, and no teacher anywhere."""

import jax.numpy as jnp
import numpy as np

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs
from tests.helpers.arrays import draw


def test_it_is_the_cross_entropy_and_needs_no_teacher():
  logits = draw(6, 1, 5)
  labels = np.arange(6, dtype=np.int32)[:, None] % 5
  method = methods.make("supervised")
  value, (state, metrics) = method.loss(
    {}, {}, Outputs(jnp.asarray(logits)), Batch(labels, None, labels), None, 0
  )
  odds = np.exp(logits[:, 0].astype(np.float64))
  chosen = odds[np.arange(6), labels[:, 0]] / odds.sum(-1)
  np.testing.assert_allclose(value, -np.log(chosen).mean(), rtol=1e-5)
  np.testing.assert_allclose(metrics["cross_entropy"], value)
  assert state == {} and method.needs == frozenset()
