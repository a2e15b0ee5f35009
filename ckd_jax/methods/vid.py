"""Variational information distillation: predicts the teacher's maps."""

import math

import chex
import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._heads import apply_conv, conv
from ckd_jax.methods._maps import pairs, same_size
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant, float32


def vid(
  predicted_mean: jax.Array,
  teacher_map: jax.Array,
  log_scale: jax.Array,
  *,
  epsilon: float = 1e-5,
) -> jax.Array:
  """Computes the teacher's negative log-likelihood under a Gaussian.

  The mean over positions and channels of (gap^2 / variance + log variance) / 2,
  with variance = softplus(log_scale) + epsilon, one for each channel. The
  constant log(2 pi) / 2 is left out, so the value may be negative.

  Args:
    predicted_mean: [n, h, w, c], the student's map after its regressor.
    teacher_map: [n, h, w, c]. No gradient.
    log_scale: [c] or a scalar, learned; softplus gives the variance.
    epsilon: the least variance.

  Returns:
    float32[n], one value per example, in nats.

  References:
    Ahn et al., arXiv 1904.05835, the heteroscedastic Gaussian of section 2.
  """
  mean, log_scale = float32(predicted_mean, log_scale)
  (teacher,) = constant(teacher_map)
  chex.assert_equal_shape((mean, teacher))
  variance = jnp.broadcast_to(
    jax.nn.softplus(log_scale) + epsilon, teacher.shape[-1:]
  )
  surprise = jnp.mean(jnp.square(mean - teacher), axis=(1, 2)) / variance[None]
  return jnp.mean(surprise + jnp.log(variance)[None], axis=1) / 2


def make(
  *,
  weight: float = 1.0,
  initial_variance: float = 5.0,
  epsilon: float = 1e-5,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """VID (arXiv 1904.05835), RepDistiller's weight, all maps but the stem's.

  Each regressor is three 1x1 convolutions without bias, ReLUs between; where
  the maps differ in size the larger one is averaged down before it.

  Args:
    weight: weight of the sum over maps.
    initial_variance: every channel's variance at the start, above epsilon.
    epsilon: least variance, above 0.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  above(0, epsilon=epsilon)
  above(epsilon, initial_variance=initial_variance)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)
  # The inverse of softplus; expm1(x) itself overflows above 709.
  rest = initial_variance - epsilon
  log_scale = rest + math.log(-math.expm1(-rest))

  def head(key, student, teacher):
    inputs, outputs = student.shape[-1], teacher.shape[-1]
    keys = jax.random.split(key, 3)
    widths = (inputs, outputs, outputs)
    layers = tuple(
      conv(key, width, outputs, (1, 1), bias=False)
      for key, width in zip(keys, widths, strict=True)
    )
    return {"layers": layers, "log_scale": jnp.full(outputs, log_scale)}

  def surprise(params, student, teacher):
    student, teacher = same_size(student, teacher)
    first, second, third = params["layers"]
    hidden = jax.nn.relu(apply_conv(first, student))
    hidden = jax.nn.relu(apply_conv(second, hidden))
    mean = apply_conv(third, hidden)
    return jnp.mean(vid(mean, teacher, params["log_scale"], epsilon=epsilon))

  def init(key, task, student, teacher):
    del task
    middle = pairs(student, teacher)[1:]
    keys = jax.random.split(key, len(middle))
    heads = [head(key, *pair) for key, pair in zip(keys, middle, strict=True)]
    return {"heads": tuple(heads)}, {}

  def terms(inputs: Inputs):
    middle = pairs(inputs.student, inputs.teacher)[1:]
    value = sum(
      surprise(head, *pair)
      for head, pair in zip(inputs.params["heads"], middle, strict=True)
    )
    return {"vid": (weight, value)}

  return make_method(terms, extra, needs=("maps",), init=init)
