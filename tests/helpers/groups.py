"""For the tests of CKD: one group in NumPy, batches of groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.methods import Batch, Outputs
from tests.helpers import arrays
from tests.helpers.arrays import softmax

SIZES = [(1, 1), (2, 1), (2, 2), (3, 2)]  # (positives, negatives)

draw = functools.partial(arrays.draw, scale=3.0)


def mixed(mix, positive, negative):
  a, b = positive.astype("f8").mean(0), negative.astype("f8").mean(0)
  if mix == "difference":
    return a - b
  return (a + b) / 2 if mix == "mean" else mix * a + (1 - mix) * b


def reference(sp, sn, tp, tn, mix="difference", divergence="mse", t=4.0):
  """One group, as the papers write it, in float64."""
  student, teacher = mixed(mix, sp, sn), mixed(mix, tp, tn)
  if divergence == "mse":
    return ((student - teacher) ** 2).mean()
  p, q = softmax(teacher / t), softmax(student / t)
  return t**2 * (p * np.log(p / q)).sum()


def a_batch(groups=5, size=2, classes=7, seed=0):
  """A Batch with labels and a teacher, and student logits beside it."""
  teacher = jnp.asarray(draw(groups, size, classes, seed=seed + 1))
  labels = np.random.default_rng(seed).integers(classes, size=(groups, size))
  labels = labels.astype(np.int32)
  batch = Batch(labels, None, labels, teachers=(Outputs(teacher),))
  return jnp.asarray(draw(groups, size, classes, seed=seed)), batch


def run(method, student, batch, key=0):
  value, (_, metrics) = method.loss(
    {}, {}, Outputs(student), batch, jax.random.key(key), 0
  )
  return value, metrics
