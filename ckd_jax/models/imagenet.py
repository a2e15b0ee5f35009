"""ResNets for 224x224 images (He et al. 2015), with torchvision's names.

The bottleneck strides in its 3x3 convolution, as torchvision's does.
"""

from functools import partial

import flax.linen as nn
import jax

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import Linear, conv_norm, pool
from ckd_jax.models.resnet import BasicBlock, MakeBlock
from ckd_jax.models.resnet50 import Bottleneck

_WIDTHS = (64, 128, 256, 512)


class ImageNetResNet(nn.Module):
  """A 7x7 stem and a max pool, four stages, a classifier."""

  num_classes: int
  blocks: tuple[int, ...]  # per stage
  block: MakeBlock = BasicBlock
  expansion: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    stem = conv_norm(x, 64, 7, stride=2, names=("conv1", "bn1"), train=train)
    x = nn.relu(stem)
    maps, preactivations = [x], [stem]
    x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    stages = zip(self.blocks, _WIDTHS, strict=True)
    for stage, (blocks, width) in enumerate(stages, start=1):
      for i in range(blocks):
        stride = 2 if stage > 1 and i == 0 else 1
        name = f"layer{stage}.{i}"
        block = self.block(width * self.expansion, stride, name=name)
        before = block(x, train)
        x = nn.relu(before)
      maps.append(x)
      preactivations.append(before)
    embedding = pool(x)
    logits = Linear(self.num_classes, name="fc")(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {
  "resnet18_imagenet": partial(ImageNetResNet, blocks=(2, 2, 2, 2)),
  "resnet34_imagenet": partial(ImageNetResNet, blocks=(3, 4, 6, 3)),
  "resnet50_imagenet": partial(
    ImageNetResNet,
    blocks=(3, 4, 6, 3),
    block=partial(Bottleneck, shortcut="downsample"),
    expansion=4,
  ),
}
