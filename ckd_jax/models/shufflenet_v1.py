"""ShuffleNetV1 (Zhang et al. 2017), three groups, 1x1 stem for 32x32 images."""

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

_GROUPS = 3
_norm = partial(conv_norm, weight_init=torch_uniform)


class Block(nn.Module):
  """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, and a shortcut.

  At stride 2 the pooled input stands beside the result instead of being added.
  Returns what the last ReLU will see.
  """

  features: int
  stride: int
  first_groups: int = _GROUPS

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = partial(_norm, train=train)
    features = self.features - (x.shape[-1] if self.stride == 2 else 0)
    inside = features // 4
    first = {"groups": self.first_groups, "names": ("conv1", "bn1")}
    y = nn.relu(norm(x, inside, 1, **first))
    y = shuffle(y, self.first_groups)
    depthwise = {"stride": self.stride, "groups": inside}
    y = nn.relu(norm(y, inside, **depthwise, names=("conv2", "bn2")))
    y = norm(y, features, 1, groups=_GROUPS, names=("conv3", "bn3"))
    if self.stride == 1:
      return y + x
    pooled = nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return jnp.concatenate([y, pooled], axis=-1)


class ShuffleNetV1(nn.Module):
  """Three stages, each of which begins with stride 2."""

  num_classes: int
  blocks: tuple[int, ...] = (4, 8, 4)
  widths: tuple[int, ...] = (240, 480, 960)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    x = nn.relu(_norm(x, 24, 1, names=("conv1", "bn1"), train=train))
    maps, preactivations = [x], [x]
    stages = zip(self.blocks, self.widths, strict=True)
    for stage, (blocks, width) in enumerate(stages, start=1):
      for i in range(blocks):
        # The 24 channels of the stem are too few to be worth grouping.
        first_groups = 1 if stage == 1 and i == 0 else _GROUPS
        stride = 2 if i == 0 else 1
        block = Block(width, stride, first_groups, name=f"layer{stage}.{i}")
        before = block(x, train)
        x = nn.relu(before)
      maps.append(x)
      preactivations.append(before)
    embedding = pool(x)
    logits = Linear(self.num_classes, name="linear")(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {"ShuffleV1": ShuffleNetV1}
