"""One pre-norm transformer: classifier and tower of texts, and causal LM.

Its layout is GPT-2's (learned positions, GELU, a norm before each part and one
at the end), its parameters are `embed`, `position`, `block_0`, ..., `norm` and
`fc`, so that a student can begin with the embeddings and the first blocks of a
teacher. Parameters, attention's softmax, pooling and logits are float32.

A tower is the classifier with the dimension of its vectors as `num_classes`:
the logits are the vectors, whoever compares them with what.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.methods import Mixed, Outputs
from ckd_jax.models.layers import Linear

_EPSILON = 1e-5  # of the norms, as GPT-2 has it


class Block(nn.Module):
  """Attention, then a perceptron of one hidden layer, each added to `x`."""

  heads: int
  causal: bool
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
    """[n, length, width], bool[n, length] -> [n, length, width]."""
    width = x.shape[-1]
    norm = partial(nn.LayerNorm, epsilon=_EPSILON, dtype=self.dtype)
    dense = partial(nn.Dense, dtype=self.dtype)

    qkv = dense(3 * width, name="qkv")(norm(name="norm_1")(x))
    qkv = qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads)
    attended = jax.nn.dot_product_attention(
      *(qkv[:, :, part] for part in range(3)),
      mask=mask[:, None, None, :],
      is_causal=self.causal,
    )
    y = dense(width, name="out")(attended.reshape(x.shape))
    x = x + _dropped(self, y, train)

    y = nn.gelu(dense(4 * width, name="up")(norm(name="norm_2")(x)))
    return x + _dropped(self, dense(width, name="down")(y), train)


class Transformer(nn.Module):
  """Tokens -> logits of the text, or of the next token at each position.

  Attributes:
    num_classes: length of the logits; of a causal one, the vocabulary.
    vocabulary: number of token ids, 0 for padding among them.
    length: the longest text, in tokens; shorter ones are run as they are.
    width: of the vectors; a multiple of `heads`.
    depth: number of blocks.
    heads: of each attention.
    causal: whether each position sees only itself and those before it.
    dropout: share of the numbers that are set to 0 in training.
    dtype: in which it computes.
  """

  num_classes: int
  vocabulary: int
  length: int
  width: int
  depth: int
  heads: int
  causal: bool = False
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, tokens: jax.Array | Mixed, train: bool) -> Outputs:
    """Runs the network.

    Args:
      tokens: int32[n, length], padded with 0 at the end; or `Mixed` ones.
      train: whether to drop out, with the stream "dropout" if there is one.

    Returns:
      `Outputs`: logits float32[n, num_classes] and embedding float32[n, width],
      the mean over the tokens of a text, zeros where it has none. If causal,
      logits float32[n, length, num_classes], each of the token that follows,
      and no embedding. Padding changes no token's answer, no row another's.

    Raises:
      ValueError: texts are longer than `length`.
    """
    x, mask = self._embedded(tokens)
    x = _dropped(self, x.astype(self.dtype), train)
    for number in range(self.depth):
      x = Block(
        self.heads,
        self.causal,
        self.dropout,
        self.dtype,
        name=f"block_{number}",
      )(x, mask, train)
    x = nn.LayerNorm(epsilon=_EPSILON, dtype=jnp.float32, name="norm")(x)
    head = Linear(self.num_classes, name="fc")
    if self.causal:
      return Outputs(head(x))
    embedding = _mean(x, mask)
    return Outputs(head(embedding), embedding)

  def _embedded(self, tokens) -> tuple[jax.Array, jax.Array]:
    """Words plus positions float32[n, length, width], and bool[n, length]."""
    embed = nn.Embed(self.vocabulary, self.width, name="embed")
    parts = tokens.parts if isinstance(tokens, Mixed) else tokens
    length = parts.shape[-1]
    if length > self.length:
      raise ValueError(
        f"texts of {length} tokens, but the network is for {self.length}"
      )
    mask = parts != 0
    x = jnp.where(mask[..., None], embed(parts), 0.0)
    if isinstance(tokens, Mixed):
      weights = tokens.weights.astype(jnp.float32)[..., None]
      x = jnp.sum(x * weights[..., None], axis=1)
      # What has no share is not there: its length does not count either.
      mask = jnp.any(mask & (weights > 0), axis=1)
    position = self.param(
      "position", nn.initializers.normal(0.02), (self.length, self.width)
    )
    return x + position[None, :length], mask


def _dropped(module, x: jax.Array, train: bool) -> jax.Array:
  """Dropout inside a compact module; none without a key."""
  still = not train or not module.has_rng("dropout")
  return nn.Dropout(module.dropout, deterministic=still)(x)


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean over the positions of a mask; zeros where there is none."""
  total = jnp.sum(jnp.where(mask[..., None], x, 0.0), axis=1)
  return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)


_TINY = {"width": 64, "depth": 2, "heads": 4}
_SMALL = {"width": 128, "depth": 4, "heads": 4}

NAMES = {
  "transformer_tiny": partial(Transformer, **_TINY, dropout=0.1),
  "transformer_small": partial(Transformer, **_SMALL, dropout=0.1),
  "lm_tiny": partial(Transformer, **_TINY, causal=True),
  "lm_small": partial(Transformer, **_SMALL, causal=True),
}
