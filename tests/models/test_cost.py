"""Parameters and operations, counted by hand."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Model, Outputs
from ckd_jax.models import cost


def test_a_dense_layer():
  def apply(params, state, images, *, train, key=None):
    flat = images.reshape(len(images), -1)
    return Outputs(flat @ params["weight"]), state

  params = {"weight": jnp.zeros((12, 5)), "bias": jnp.zeros(5)}
  assert cost.parameters(params) == 65
  model = Model(None, apply)
  image = jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.float32)
  # 12 x 5 multiplications and as many additions
  assert cost.flops(model, params, {}, image) == 120
