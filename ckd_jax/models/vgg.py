"""VGG (Simonyan and Zisserman 2014) with batch norm and one linear layer."""

from functools import partial

import flax.linen as nn
import jax

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import Linear, conv_norm, pool, small_normal


class VGG(nn.Module):
  """Five blocks of convolutions with a 2x2 max pool between them."""

  num_classes: int
  blocks: tuple[int, ...]  # convolutions per block

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    image_size = x.shape[1]
    maps, preactivations = [], []
    for block, convolutions in enumerate(self.blocks):
      # At 32 pixels the last block keeps 4x4: the fourth pool is for 64.
      if 0 < block < 4 or (block == 4 and image_size == 64):
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
      for i in range(convolutions):
        # PyTorch counts a convolution, its norm and its ReLU.
        names = (f"block{block}.{3 * i}", f"block{block}.{3 * i + 1}")
        before = conv_norm(
          x, min(64 << block, 512), use_bias=True, names=names, train=train
        )
        x = nn.relu(before)
      maps.append(x)
      preactivations.append(before if block else x)
    embedding = pool(x)
    logits = Linear(
      self.num_classes, small_normal, zero_bias=True, name="classifier"
    )(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {
  "vgg8": partial(VGG, blocks=(1, 1, 1, 1, 1)),
  "vgg11": partial(VGG, blocks=(1, 1, 2, 2, 2)),
  "vgg13": partial(VGG, blocks=(2, 2, 2, 2, 2)),
  "vgg16": partial(VGG, blocks=(2, 2, 3, 3, 3)),
  "vgg19": partial(VGG, blocks=(2, 2, 4, 4, 4)),
}
