"""Learned heads: plain dicts of float32 arrays, initialised as in PyTorch.

Convolutions work on maps [n, h, w, c] and give float32.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ckd_jax.numerics import float32, moments

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def linear(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
  """Draws the parameters of `apply_linear`: uniform within 1 / sqrt(inputs)."""
  weight_key, bias_key = jax.random.split(key)
  bound = inputs**-0.5
  shape = (inputs, outputs)
  return {
    "weight": jax.random.uniform(weight_key, shape, jnp.float32, -bound, bound),
    "bias": jax.random.uniform(
      bias_key, (outputs,), jnp.float32, -bound, bound
    ),
  }


def apply_linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  """Maps [n, inputs] to float32[n, outputs]."""
  return x.astype(jnp.float32) @ params["weight"] + params["bias"][None]


def conv(
  key: jax.Array,
  inputs: int,
  outputs: int,
  size: tuple[int, ...] = (3, 3),
  *,
  bias: bool = True,
) -> dict[str, jax.Array]:
  """Draws the parameters of `apply_conv`.

  Args:
    key: random key.
    inputs: channels of the input.
    outputs: channels of the result.
    size: (height, width) of the kernel.
    bias: whether there is one.

  Returns:
    "weight" [*size, inputs, outputs] and "bias" [outputs], uniform within
    1 / sqrt(height * width * inputs).
  """
  return _uniform(key, (*size, inputs, outputs), outputs if bias else None)


def deconv(
  key: jax.Array,
  inputs: int,
  outputs: int,
  size: tuple[int, ...] = (3, 3),
  *,
  bias: bool = True,
) -> dict[str, jax.Array]:
  """Draws the parameters of `apply_deconv`.

  Args:
    key: random key.
    inputs: channels of the input.
    outputs: channels of the result.
    size: (height, width) of the kernel.
    bias: whether there is one.

  Returns:
    "weight" [*size, outputs, inputs] and "bias" [outputs], uniform within
    1 / sqrt(height * width * outputs): PyTorch counts outputs here.
  """
  return _uniform(key, (*size, outputs, inputs), outputs if bias else None)


def _uniform(key, shape, biases: int | None):
  weight_key, bias_key = jax.random.split(key)
  bound = math.prod(shape[:-1]) ** -0.5
  weight = jax.random.uniform(weight_key, shape, jnp.float32, -bound, bound)
  if biases is None:
    return {"weight": weight}
  bias = jax.random.uniform(bias_key, (biases,), jnp.float32, -bound, bound)
  return {"weight": weight, "bias": bias}


def apply_conv(params, x: jax.Array, *, stride=1, padding=0) -> jax.Array:
  """Convolves [n, h, w, inputs] to float32[n, h', w', outputs] (Conv2d)."""
  y = lax.conv_general_dilated(
    *float32(x, params["weight"]),
    window_strides=(stride, stride),
    padding=((padding, padding),) * 2,
    dimension_numbers=_LAYOUT,
  )
  return _shift(params, y)


def apply_deconv(params, x: jax.Array, *, stride=1, padding=0) -> jax.Array:
  """Convolves [n, h, w, inputs] to [n, h', w', outputs] (ConvTranspose2d)."""
  sides = [size - 1 - padding for size in params["weight"].shape[:2]]
  y = lax.conv_transpose(
    *float32(x, params["weight"]),
    strides=(stride, stride),
    padding=[(side, side) for side in sides],
    dimension_numbers=_LAYOUT,
    transpose_kernel=True,
  )
  return _shift(params, y)


def _shift(params, y: jax.Array) -> jax.Array:
  return y + params["bias"][None, None, None] if "bias" in params else y


def batch_norm(channels: int) -> dict[str, jax.Array]:
  """Makes the parameters of `apply_batch_norm`: scale 1, offset 0."""
  return {"scale": jnp.ones(channels), "offset": jnp.zeros(channels)}


def apply_batch_norm(params, x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
  """Normalises [..., channels] by the statistics of the batch.

  There are no running statistics: a head is never used outside training.
  """
  mean, variance = moments(x, one_pass=False)  # x is float32
  scale = params["scale"] * lax.rsqrt(variance + epsilon)
  mean, scale, offset = (
    vector.reshape((1,) * (x.ndim - 1) + (-1,))
    for vector in (mean, scale, params["offset"])
  )
  return (x - mean) * scale + offset


def regressor(
  key: jax.Array, student: tuple[int, ...], teacher: tuple[int, ...]
) -> dict[str, dict]:
  """Draws the parameters of `regress`.

  The convolution has no bias: batch norm would remove it.

  Args:
    key: random key.
    student: shape of the student's map, (..., h, w, c).
    teacher: shape of the teacher's map, (..., h', w', c').

  Raises:
    ValueError: the teacher's map is larger, and not just twice as large.
  """
  channels = student[-1], teacher[-1]
  how = _how(student[-3:-1], teacher[-3:-1])
  if how == "double":
    layer = deconv(key, *channels, (4, 4), bias=False)
  elif how == "halve":
    layer = conv(key, *channels, bias=False)
  else:
    size = [
      1 + s - t for s, t in zip(student[-3:-1], teacher[-3:-1], strict=True)
    ]
    layer = conv(key, *channels, tuple(size), bias=False)
  return {"conv": layer, "norm": batch_norm(teacher[-1])}


def regress(params, x: jax.Array, teacher: tuple[int, ...]) -> jax.Array:
  """Brings a map to the shape of the teacher's: convolution, batch norm.

  Args:
    params: parameters from `regressor`.
    x: [n, h, w, c], the student's map.
    teacher: shape of the teacher's map, (..., h', w', c').

  Returns:
    float32[n, h', w', c'].
  """
  how = _how(x.shape[-3:-1], teacher[-3:-1])
  if how == "double":
    y = apply_deconv(params["conv"], x, stride=2, padding=1)
  elif how == "halve":
    y = apply_conv(params["conv"], x, stride=2, padding=1)
  else:
    y = apply_conv(params["conv"], x)
  return apply_batch_norm(params["norm"], y)


def _how(student: tuple[int, ...], teacher: tuple[int, ...]) -> str:
  sides = list(zip(student, teacher, strict=True))
  if all(s == 2 * t for s, t in sides):
    return "halve"
  if all(2 * s == t for s, t in sides):
    return "double"
  if all(s >= t for s, t in sides):
    return "crop"
  raise ValueError(
    f"no regressor leads from a student's map of {student} to a teacher's of "
    f"{teacher}: choose networks, or a map, where it is no more than doubled"
  )
