"""ONE: ResNets for 32x32 images whose last stage is there three times.

A gate weighs the branches' logits into an ensemble, their teacher. one_resnetN
deploys its first branch, which is a resnetN; one_resnetN_e the ensemble. Their
`Outputs.branches` are the logits of the branches, and of the ensemble.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.methods import Outputs
from ckd_jax.models.layers import BatchNorm, Linear, conv_norm, pool
from ckd_jax.models.resnet import stage


class BranchedResNet(nn.Module):
  """A stem and stages that the branches share, and their own last stages.

  The gate is softmax(ReLU(BN(Linear(pooled)))) of what they share (Lan et al.,
  arXiv 1806.04606). No layer of two branches has the same statistics.
  """

  num_classes: int
  blocks: int  # per stage
  widths: tuple[int, ...] = (16, 16, 32, 64)  # of the stem and of each stage
  branches: int = 3
  deploys_ensemble: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> Outputs:
    stem, *shared, last = self.widths
    x = nn.relu(conv_norm(x, stem, names=("conv1", "bn1"), train=train))
    maps, before = [x], [x]
    for number, width in enumerate(shared, start=1):
      x, preactivation = stage(x, number, self.blocks, width, train=train)
      maps.append(x)
      before.append(preactivation)
    ends, logits = [], []
    for branch in range(self.branches):
      ends.append(
        stage(
          x,
          len(shared) + 1,
          self.blocks,
          last,
          train=train,
          prefix=f"branch{branch}.",
        )
      )
      classify = Linear(self.num_classes, name=f"branch{branch}.fc")
      logits.append(classify(pool(ends[-1][0])))
    scores = Linear(self.branches, name="gate.0")(pool(x))
    gate = nn.softmax(nn.relu(BatchNorm(name="gate.1")(scores, train)))
    ensemble = jnp.einsum("nb,bnc->nc", gate, jnp.stack(logits))
    every = (*logits, ensemble)
    if self.deploys_ensemble:
      return Outputs(ensemble, branches=every)
    first, preactivation = ends[0]
    return Outputs(
      logits[0],
      pool(first),
      (*maps, first),
      (*before, preactivation),
      every,
    )


def _make(depth: int, **options) -> partial[BranchedResNet]:
  return partial(BranchedResNet, blocks=(depth - 2) // 6, **options)


_DEPTHS = (8, 20, 32, 56, 110)
NAMES = {
  **{f"one_resnet{depth}": _make(depth) for depth in _DEPTHS},
  **{
    f"one_resnet{depth}_e": _make(depth, deploys_ensemble=True)
    for depth in _DEPTHS
  },
}
