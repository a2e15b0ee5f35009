"""MobileNetV2 (Sandler et al. 2018) at half width, its first stride for 32x32.

Its stages end in a linear bottleneck, so a map and its preactivation are one.
"""

from functools import partial

import flax.linen as nn
import jax

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import Linear, conv_norm, pool, small_normal

# Expansion, features, blocks, stride of the first block.
_STAGES = (
  (1, 8, 1, 1),
  (6, 12, 2, 1),
  (6, 16, 3, 2),
  (6, 32, 4, 2),
  (6, 48, 3, 1),
  (6, 80, 3, 2),
  (6, 160, 1, 1),
)
_MAPS_AFTER = (1, 2, 4, 6)


class InvertedResidual(nn.Module):
  """Widens, filters each channel by itself, narrows without a ReLU."""

  features: int
  stride: int
  expansion: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = partial(conv_norm, train=train)
    wide = x.shape[-1] * self.expansion
    y = nn.relu(norm(x, wide, 1, names=("conv.0", "conv.1")))
    depthwise = {"stride": self.stride, "groups": wide}
    y = nn.relu(norm(y, wide, **depthwise, names=("conv.3", "conv.4")))
    y = norm(y, self.features, 1, names=("conv.6", "conv.7"))
    return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
  """A strided stem, seven stages, a 1x1 convolution to 1280 channels."""

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    norm = partial(conv_norm, train=train)
    x = nn.relu(norm(x, 16, stride=2, names=("conv1.0", "conv1.1")))
    maps = [x]
    for stage, (expansion, features, blocks, stride) in enumerate(_STAGES):
      for i in range(blocks):
        x = InvertedResidual(
          features,
          stride if i == 0 else 1,
          expansion,
          name=f"blocks.{stage}.{i}",
        )(x, train)
      if stage in _MAPS_AFTER:
        maps.append(x)
    x = nn.relu(norm(x, 1280, 1, names=("conv2.0", "conv2.1")))
    embedding = pool(x)
    logits = Linear(
      self.num_classes, small_normal, zero_bias=True, name="classifier.0"
    )(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(maps))


NAMES = {"MobileNetV2": MobileNetV2}
