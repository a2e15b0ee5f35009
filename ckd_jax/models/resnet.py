"""ResNets for 32x32 images (He et al. 2015, section 4.2) and their variants.

resnetN has N = 6n + 2 layers and projects where the width changes (option B).
x4 is four times as wide. _a pads with zero channels instead (option A), as the
public CIFAR-10 checkpoints of akamaster/pytorch_resnet_cifar10 do.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import Linear, conv_norm, pool

MakeBlock = Callable[..., nn.Module]  # (features, stride, *, name) -> a block


class BasicBlock(nn.Module):
  """Two convolutions and a shortcut; returns what the last ReLU will see."""

  features: int
  stride: int = 1
  project: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = partial(conv_norm, features=self.features, train=train)
    y = nn.relu(norm(x, stride=self.stride, names=("conv1", "bn1")))
    y = norm(y, names=("conv2", "bn2"))
    if x.shape == y.shape:
      return x + y
    if self.project:
      names = ("downsample.0", "downsample.1")
      return y + norm(x, kernel=1, stride=self.stride, names=names)
    side = (self.features - x.shape[-1]) // 2
    x = x[:, :: self.stride, :: self.stride]
    return y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (side, side)))


def stage(
  x: jax.Array,
  number: int,
  blocks: int,
  width: int,
  *,
  train: bool,
  block: MakeBlock = BasicBlock,
  prefix: str = "",
) -> tuple[jax.Array, jax.Array]:
  """Blocks of one width, inside a compact module.

  Args:
    x: [n, h, w, channels].
    number: of the stage, from 1; later ones halve the image.
    blocks: number of blocks, 1 or more.
    width: channels that come out.
    train: whether to normalise by the statistics of this batch.
    block: makes a block.
    prefix: of the blocks' names.

  Returns:
    [n, h', w', width], and the same before the last ReLU.
  """
  before = x
  for i in range(blocks):
    stride = 2 if number > 1 and i == 0 else 1
    before = block(width, stride, name=f"{prefix}layer{number}.{i}")(x, train)
    x = nn.relu(before)
  return x, before


class ResNet(nn.Module):
  """A stem, stages that halve the image from the second on, a classifier."""

  num_classes: int
  blocks: tuple[int, ...]  # per stage
  widths: tuple[int, ...]  # of the stem and of each stage
  block: MakeBlock = BasicBlock
  classifier: str = "fc"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    stem, *widths = self.widths
    x = nn.relu(conv_norm(x, stem, names=("conv1", "bn1"), train=train))
    maps, preactivations = [x], [x]
    stages = zip(self.blocks, widths, strict=True)
    for number, (blocks, width) in enumerate(stages, start=1):
      x, before = stage(x, number, blocks, width, train=train, block=self.block)
      maps.append(x)
      preactivations.append(before)
    embedding = pool(x)
    logits = Linear(self.num_classes, name=self.classifier)(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


def _make(depth: int, widths=(16, 16, 32, 64), **options) -> partial[ResNet]:
  blocks = ((depth - 2) // 6,) * 3
  return partial(ResNet, blocks=blocks, widths=widths, **options)


_WIDE = (32, 64, 128, 256)
_OPTION_A = {
  "block": partial(BasicBlock, project=False),
  "classifier": "linear",
}

NAMES = {
  **{f"resnet{depth}": _make(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
  **{f"resnet{depth}x4": _make(depth, _WIDE) for depth in (8, 32)},
  **{f"resnet{d}_a": _make(d, **_OPTION_A) for d in (20, 32, 44, 56)},
}
