"""ShuffleNetV2 (Ma et al. 2018), size 1, with a 1x1 stem for 32x32 images."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import (
  Linear,
  conv_norm,
  pool,
  shuffle,
  torch_uniform,
)

_norm = partial(conv_norm, weight_init=torch_uniform)


class DownBlock(nn.Module):
  """Two branches at stride 2 over the same input, side by side."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = partial(_norm, train=train)
    half, inputs = self.features // 2, x.shape[-1]
    left = norm(x, inputs, stride=2, groups=inputs, names=("conv1", "bn1"))
    left = nn.relu(norm(left, half, 1, names=("conv2", "bn2")))
    right = nn.relu(norm(x, half, 1, names=("conv3", "bn3")))
    right = norm(right, half, stride=2, groups=half, names=("conv4", "bn4"))
    right = nn.relu(norm(right, half, 1, names=("conv5", "bn5")))
    return shuffle(jnp.concatenate([left, right], axis=-1), 2)


class Block(nn.Module):
  """Passes one half of the channels by and convolves the other.

  Returns the shuffled map, and the halves before the ReLU, not shuffled.
  """

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    norm = partial(_norm, train=train)
    half = x.shape[-1] // 2
    kept, y = x[..., :half], x[..., half:]
    y = nn.relu(norm(y, half, 1, names=("conv1", "bn1")))
    y = norm(y, half, groups=half, names=("conv2", "bn2"))
    y = norm(y, half, 1, names=("conv3", "bn3"))
    before = jnp.concatenate([kept, y], axis=-1)
    return shuffle(jnp.concatenate([kept, nn.relu(y)], axis=-1), 2), before


class ShuffleNetV2(nn.Module):
  """Three stages, each of which begins with stride 2; 1024 channels on top."""

  num_classes: int
  blocks: tuple[int, ...] = (3, 7, 3)  # after the one at stride 2
  widths: tuple[int, ...] = (116, 232, 464)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    x = nn.relu(_norm(x, 24, 1, names=("conv1", "bn1"), train=train))
    maps, preactivations = [x], [x]
    stages = zip(self.blocks, self.widths, strict=True)
    for stage, (blocks, width) in enumerate(stages, start=1):
      x = DownBlock(width, name=f"layer{stage}.0")(x, train)
      for i in range(1, blocks + 1):
        x, before = Block(name=f"layer{stage}.{i}")(x, train)
      maps.append(x)
      preactivations.append(before)
    x = nn.relu(_norm(x, 1024, 1, names=("conv2", "bn2"), train=train))
    embedding = pool(x)
    logits = Linear(self.num_classes, name="linear")(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {"ShuffleV2": ShuffleNetV2}
