"""PyTorch's convolution, batch norm and linear layer, as Linen modules.

Parameters carry PyTorch's names, so that a path in a tree of ours, joined with
dots, is the name of a tensor in a PyTorch checkpoint. Parameters and statistics
are float32, a layer computes in the dtype of its input, images are NHWC.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ckd_jax.numerics import moments

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
small_normal = nn.initializers.normal(0.01)
# Uniform within 1 / sqrt(fan_in): PyTorch's default.
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
  """A square convolution, padded so that stride 1 keeps the image size."""

  features: int
  kernel: int = 3
  stride: int = 1
  groups: int = 1
  use_bias: bool = False
  weight_init: nn.initializers.Initializer = he_normal

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inputs = x.shape[-1] // self.groups
    shape = (self.kernel, self.kernel, inputs, self.features)
    weight = self.param("weight", self.weight_init, shape)
    # Not "SAME": at stride 2 that pads one side only, PyTorch pads both.
    padding = (self.kernel // 2, self.kernel // 2)
    y = jax.lax.conv_general_dilated(
      x,
      weight.astype(x.dtype),
      window_strides=(self.stride, self.stride),
      padding=(padding, padding),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=self.groups,
    )
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      y += bias.astype(y.dtype).reshape(1, 1, 1, -1)
    return y


class BatchNorm(nn.Module):
  """Batch norm that keeps the unbiased running variance, as PyTorch does.

  Under jit the mean over a sharded batch is the mean over the whole batch.
  """

  momentum: float = 0.1  # of the new value
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    shape = x.shape[-1:]
    weight = self.param("weight", nn.initializers.ones, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    running_mean = self.variable("state", "running_mean", jnp.zeros, shape)
    running_var = self.variable("state", "running_var", jnp.ones, shape)
    mean, var = running_mean.value, running_var.value
    wide = x.astype(jnp.float32)
    if train:
      # One pass saves a fifth of an accelerator's step, and no digit that
      # bfloat16 has.
      mean, var = moments(wide, one_pass=x.dtype == jnp.bfloat16)
      count = x.size // x.shape[-1]
      unbiased = var * (count / max(count - 1, 1))
      running_mean.value += self.momentum * (mean - running_mean.value)
      running_var.value += self.momentum * (unbiased - running_var.value)
    # One multiply and one add per pixel; the rest is per channel.
    scale = weight * jax.lax.rsqrt(var + self.epsilon)
    shift = bias - mean * scale
    return (wide * _channels(scale, x) + _channels(shift, x)).astype(x.dtype)


class Linear(nn.Module):
  """A dense layer; always float32, for it makes the logits."""

  features: int
  weight_init: nn.initializers.Initializer = torch_uniform
  zero_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inputs = x.shape[-1]

    def bias_init(key, shape):
      bound = 0.0 if self.zero_bias else inputs**-0.5
      return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    weight = self.param("weight", self.weight_init, (inputs, self.features))
    bias = self.param("bias", bias_init, (self.features,))
    return x.astype(jnp.float32) @ weight + _channels(bias, x)


def conv_norm(
  x: jax.Array,
  features: int,
  kernel: int = 3,
  *,
  names: tuple[str, str],
  train: bool,
  **options,
) -> jax.Array:
  """A convolution and its batch norm, inside a compact module.

  Args:
    x: [n, h, w, channels].
    features: channels that come out.
    kernel: height and width of the convolution.
    names: of the convolution and of the batch norm.
    train: whether to normalise by the statistics of this batch.
    **options: the other fields of `Conv`.

  Returns:
    [n, h', w', features], before the ReLU.
  """
  conv_name, norm_name = names
  x = Conv(features, kernel, name=conv_name, **options)(x)
  return BatchNorm(name=norm_name)(x, train)


def pool(x: jax.Array) -> jax.Array:
  """The mean over the image: [n, h, w, c] -> [n, c]."""
  if x.dtype != jnp.float32:
    # jaxlib 0.12 fuses this mean on CPU with what comes before it, and in
    # bfloat16 the result is not a number.
    x = jax.lax.optimization_barrier(x)
  return x.mean((1, 2))


def shuffle(x: jax.Array, groups: int) -> jax.Array:
  """Deals the channels of each group out to all groups."""
  split = x.reshape(*x.shape[:-1], groups, -1)
  return split.swapaxes(-1, -2).reshape(x.shape)


def _channels(vector: jax.Array, x: jax.Array) -> jax.Array:
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))
