"""A deep averaging network: the mean of a text's words, and a perceptron.

Iyyer et al., ACL 2015. It knows no order, and costs little: a classifier, or
the tower of short queries.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.methods import Mixed, Outputs
from ckd_jax.models.layers import Linear


class Averaging(nn.Module):
  """Tokens -> logits of the text.

  Attributes:
    num_classes: length of the logits.
    vocabulary: number of token ids, 0 for padding among them.
    length: the longest text, in tokens; not used.
    width: of the vectors of words.
    hidden: of the perceptron.
    dtype: in which it computes.
  """

  num_classes: int
  vocabulary: int
  length: int
  width: int = 256
  hidden: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, tokens: jax.Array | Mixed) -> Outputs:
    """Runs the network.

    Args:
      tokens: int32[n, length], padded with 0; or `Mixed` ones.

    Returns:
      `Outputs`: logits float32[n, num_classes], embedding float32[n, hidden].
    """
    if not isinstance(tokens, Mixed):
      tokens = Mixed(tokens[:, None], jnp.ones((len(tokens), 1)))
    shares = tokens.weights[..., None] * (tokens.parts != 0)
    words = nn.Embed(self.vocabulary, self.width, name="embed")(tokens.parts)
    total = jnp.sum(words * shares[..., None], axis=(1, 2))
    count = jnp.sum(jnp.any(shares > 0, axis=1), axis=1, keepdims=True)
    x = total / jnp.maximum(count, 1)
    x = nn.gelu(nn.Dense(self.hidden, dtype=self.dtype, name="up")(x))
    x = x.astype(jnp.float32)
    return Outputs(Linear(self.num_classes, name="fc")(x), x)


NAMES = {"averaging": Averaging}
