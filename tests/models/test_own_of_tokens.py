"""Networks of other libraries that read tokens: ids stay integers."""

from typing import NamedTuple

import equinox
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ckd_jax import models
from ckd_jax.methods import Mixed, Model, Outputs

pytestmark = pytest.mark.slow
VOCABULARY, CLASSES = 600, 3  # more ids than bfloat16 or uint8 can tell apart


class InLinen(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    return nn.Embed(VOCABULARY, CLASSES)(tokens).mean(1)


class InNnx(nnx.Module):
  def __init__(self, rngs):
    self.embed = nnx.Embed(VOCABULARY, CLASSES, rngs=rngs)

  def __call__(self, tokens):
    return self.embed(tokens).mean(1)


class InEquinox(equinox.Module):
  embed: equinox.nn.Embedding

  def __call__(self, tokens, *, key=None):
    return jax.vmap(self.embed)(tokens).mean(0)


class Weights(NamedTuple):
  """No dict, so that `plain` has to make one of it."""

  table: jax.Array


def in_jax() -> Model:
  def init(key, tokens):
    assert jnp.issubdtype(tokens.dtype, jnp.integer)
    return Weights(jax.random.normal(key, (VOCABULARY, CLASSES))), {}

  def apply(params, state, tokens, *, train, key=None):
    return Outputs(params.table[tokens].mean(1)), state

  return Model(init, apply)


OWN = {
  "linen": lambda: InLinen(),
  "nnx": lambda: InNnx(nnx.Rngs(0)),
  "equinox": lambda: InEquinox(
    equinox.nn.Embedding(VOCABULARY, CLASSES, key=jax.random.key(0))
  ),
  "haiku": lambda: hk.transform(
    lambda tokens: hk.Embed(VOCABULARY, CLASSES)(tokens).mean(1)
  ),
  "plain": in_jax,
}


@pytest.mark.parametrize("library", OWN)
def test_tokens(library):
  model = models.as_model(OWN[library]())
  tokens = np.array([[0, 513], [599, 599]], np.int32)
  params, state = model.init(jax.random.key(0), tokens)
  (table,) = jax.tree.leaves(params)
  for train in (False, True):
    outputs, _ = model.apply(
      params, state, tokens, train=train, key=jax.random.key(1)
    )
    expected = np.asarray(table)[tokens].mean(1)
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-6)


def test_mixed_tokens_reach_a_network_as_they_are():
  seen = []

  class Curious(nn.Module):
    @nn.compact
    def __call__(self, inputs):
      seen.append(inputs)
      return self.param("bias", nn.initializers.zeros, (1, CLASSES))

  model = models.linen.model(Curious(), dtype=jnp.bfloat16)
  mixed = Mixed(np.ones((1, 2, 4), np.int32), np.ones((1, 2), np.float32))
  params, state = model.init(jax.random.key(0), mixed)
  model.apply(params, state, mixed, train=False)
  for inputs in seen:
    assert isinstance(inputs, Mixed) and inputs.parts.shape == (1, 2, 4)
    assert [leaf.dtype for leaf in inputs] == [np.int32, np.float32]
