"""Wide ResNets (Zagoruyko and Komodakis 2016): wrn_depth_width, no dropout."""

from functools import partial

import flax.linen as nn
import jax

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import BatchNorm, Conv, Linear, pool


class Block(nn.Module):
  """Norm, ReLU, convolution, twice, and a shortcut.

  Returns the sum and the first norm: the map that came in, before its ReLU.
  """

  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    before = BatchNorm(name="bn1")(x, train)
    y = active = nn.relu(before)
    y = Conv(self.features, stride=self.stride, name="conv1")(y)
    y = nn.relu(BatchNorm(name="bn2")(y, train))
    y = Conv(self.features, name="conv2")(y)
    if x.shape[-1] != self.features:
      project = Conv(self.features, 1, self.stride, name="convShortcut")
      x = project(active)
    return x + y, before


class WideResNet(nn.Module):
  """Three stages; the maps are sums that nothing has yet normalised."""

  num_classes: int
  blocks: int  # per stage
  width: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    x = Conv(16, name="conv1")(x)
    maps, preactivations = [x], [x]
    for stage, features in enumerate((16, 32, 64), start=1):
      for i in range(self.blocks):
        stride = 2 if stage > 1 and i == 0 else 1
        name = f"block{stage}.layer.{i}"
        x, before = Block(features * self.width, stride, name=name)(x, train)
        if stage > 1 and i == 0:
          preactivations.append(before)
      maps.append(x)
    before = BatchNorm(name="bn1")(x, train)
    preactivations.append(before)
    embedding = pool(nn.relu(before))
    logits = Linear(self.num_classes, zero_bias=True, name="fc")(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {
  f"wrn_{depth}_{width}": partial(
    WideResNet, blocks=(depth - 4) // 6, width=width
  )
  for depth in (16, 40)
  for width in (1, 2)
}
