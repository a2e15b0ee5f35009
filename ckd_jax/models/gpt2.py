"""GPT-2 as a teacher: `Transformer` of any size, with log-probabilities."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Model
from ckd_jax.models import linen
from ckd_jax.models.transformer import Transformer


def gpt2(
  vocabulary: int, *, length: int, width: int, depth: int, heads: int
) -> Model:
  """Makes the network.

  Its logits are log-probabilities: GPT-2's own can be about -100, which a table
  in float16 would round to sixteenths. Padding, which it does not know, is as
  improbable as its least probable token, so that every logit is finite.

  Args:
    vocabulary: number of token ids, 0 for padding among them.
    length: the longest text, in tokens.
    width: of the vectors.
    depth: number of blocks.
    heads: of each attention.
  """
  module = Transformer(
    vocabulary, vocabulary, length, width, depth, heads, causal=True
  )
  inner = linen.model(module)

  def apply(params, state, inputs, *, train, key=None):
    outputs, state = inner.apply(params, state, inputs, train=train, key=key)
    known = outputs.logits[..., 1:]
    least = jnp.min(known, axis=-1, keepdims=True)
    whole = jnp.concatenate([least, known], axis=-1)
    return outputs._replace(logits=jax.nn.log_softmax(whole)), state

  return Model(inner.init, apply)
