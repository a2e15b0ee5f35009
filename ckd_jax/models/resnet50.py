"""ResNet-50 with a 3x3 stem for 32x32 images: four stages of bottlenecks."""

from functools import partial

import flax.linen as nn
import jax

from ckd_jax.models.layers import conv_norm
from ckd_jax.models.resnet import ResNet


class Bottleneck(nn.Module):
  """1x1, 3x3, 1x1 and a shortcut; returns what the last ReLU will see."""

  features: int  # that come out; a quarter of them inside
  stride: int = 1
  shortcut: str = "shortcut"  # the name of the projection

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = partial(conv_norm, train=train)
    inside, stride = self.features // 4, self.stride
    y = nn.relu(norm(x, inside, 1, names=("conv1", "bn1")))
    y = nn.relu(norm(y, inside, stride=stride, names=("conv2", "bn2")))
    y = norm(y, self.features, 1, names=("conv3", "bn3"))
    if x.shape != y.shape:
      names = (f"{self.shortcut}.0", f"{self.shortcut}.1")
      x = norm(x, self.features, 1, stride=stride, names=names)
    return x + y


NAMES = {
  "ResNet50": partial(
    ResNet,
    blocks=(3, 4, 6, 3),
    widths=(64, 256, 512, 1024, 2048),
    block=Bottleneck,
    classifier="linear",
  )
}
