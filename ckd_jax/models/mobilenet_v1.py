"""MobileNet (Howard et al. 2017) for 224x224 images.

Names are those of the PyTorch version that distillation papers compare with.
"""

import flax.linen as nn
import jax

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import Linear, conv_norm, pool

# Features and stride of each depthwise separable convolution.
_LAYERS = (
  (64, 1),
  (128, 2),
  (128, 1),
  (256, 2),
  (256, 1),
  (512, 2),
  *((512, 1),) * 5,
  (1024, 2),
  (1024, 1),
)


class MobileNetV1(nn.Module):
  """A strided stem, thirteen separable convolutions, a classifier."""

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    names = ("model.0.0", "model.0.1")
    before = conv_norm(x, 32, stride=2, names=names, train=train)
    x = nn.relu(before)
    maps, preactivations = [], []
    for layer, (features, stride) in enumerate(_LAYERS, start=1):
      if stride == 2:  # a stage ends here
        maps.append(x)
        preactivations.append(before)
      name = f"model.{layer}"
      x = conv_norm(
        x,
        x.shape[-1],
        stride=stride,
        groups=x.shape[-1],
        names=(f"{name}.0", f"{name}.1"),
        train=train,
      )
      before = conv_norm(
        nn.relu(x),
        features,
        1,
        names=(f"{name}.3", f"{name}.4"),
        train=train,
      )
      x = nn.relu(before)
    maps.append(x)
    preactivations.append(before)
    embedding = pool(x)
    logits = Linear(self.num_classes, name="fc")(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {"mobilenet_v1": MobileNetV1}
