"""Small plain networks for small images (8x8 digits), quick on a CPU."""

from functools import partial

import flax.linen as nn
import jax

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import Linear, conv_norm, pool


class CNN(nn.Module):
  """Three convolutions, the second of which halves the image."""

  num_classes: int
  widths: tuple[int, int, int]

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    maps, preactivations = [], []
    for i, width in enumerate(self.widths, start=1):
      before = conv_norm(
        x,
        width,
        stride=2 if i == 2 else 1,
        names=(f"conv{i}", f"bn{i}"),
        train=train,
      )
      x = nn.relu(before)
      maps.append(x)
      preactivations.append(before)
    embedding = pool(x)
    logits = Linear(self.num_classes, name="fc")(embedding)
    return Outputs(logits, embedding, tuple(maps), tuple(preactivations))


NAMES = {
  "cnn": partial(CNN, widths=(16, 32, 32)),
  "cnn_wide": partial(CNN, widths=(64, 128, 128)),
}
