"""Augments and normalises images on the device."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# The values of config.augment: (kind of random crop, random flip).
CHOICES = {
  "none": (None, False),
  "crop": ("padded", False),
  "flip": (None, True),
  "crop_flip": ("padded", True),
  "resized_crop_flip": ("resized", True),
}


def make(
  name: str, padding: int
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Builds the augmentation function augment(key, images).

  Args:
    name: one of CHOICES.
    padding: pixels of black border added before a crop of the "padded" kind.

  Returns:
    A pure function of a random key and uint8[n, h, w, c]. It draws a crop and a
    flip for every image and keeps shape and type.
  """
  crop, flip = CHOICES[name]

  def augment(key: jax.Array, images: jax.Array) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    if crop == "padded":
      images = random_crop(crop_key, images, padding)
    if crop == "resized":
      images = random_resized_crop(crop_key, images)
    if flip:
      images = random_flip(flip_key, images)
    return images

  return augment


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
  """Pads images with zeros and crops a random window from each.

  Args:
    key: random key.
    images: uint8[n, h, w, c].
    padding: pixels added on every side.

  Returns:
    uint8[n, h, w, c].
  """
  count, height, width, channels = images.shape
  corner = jax.random.randint(key, (count, 2), 0, 2 * padding + 1)
  # Whole lines first: a TPU moves them as they lie in the table.
  lines = images.reshape(count, height, width * channels)
  lines = _window(lines, corner[:, 0], padding, axis=1)
  return _window(lines.reshape(images.shape), corner[:, 1], padding, axis=2)


def _window(
  x: jax.Array, start: jax.Array, padding: int, axis: int
) -> jax.Array:
  """Pads one axis with zeros and cuts a window out of it.

  Chooses between all 2 * padding + 1 windows, pixel by pixel. Where every
  example has a slice of its own, a TPU cuts them one after the other.

  Args:
    x: [n, ...].
    start: int32[n], where each window begins, 0 to 2 * padding.
    padding: zeros on either side.
    axis: that is cut.

  Returns:
    An array of the same shape.
  """
  border = [(0, 0)] * x.ndim
  border[axis] = (padding, padding)
  padded = jnp.pad(x, border)
  start = start.reshape(-1, *[1] * (x.ndim - 1))

  def window(shift):
    end = shift + x.shape[axis]
    return jax.lax.slice_in_dim(padded, shift, end, axis=axis)

  chosen = window(0)
  for shift in range(1, 2 * padding + 1):
    chosen = jnp.where(start == shift, window(shift), chosen)
  return chosen


def random_resized_crop(key: jax.Array, images: jax.Array) -> jax.Array:
  """Crops a random part of each image and resizes it to the full size.

  A part has 8 to 100 % of the area and an aspect ratio, relative to the image,
  of 3/4 to 4/3 (Szegedy et al., arXiv 1409.4842); bilinear, with antialiasing.

  Args:
    key: random key.
    images: uint8[n, h, w, c].

  Returns:
    uint8[n, h, w, c].
  """
  size = jnp.asarray(images.shape[1:3], jnp.float32)

  def cut(key, image):
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, minval=0.08, maxval=1.0)
    bound = jnp.log(4 / 3)
    ratio = jnp.exp(jax.random.uniform(ratio_key, minval=-bound, maxval=bound))
    share = jnp.sqrt(area) * jnp.stack([1 / jnp.sqrt(ratio), jnp.sqrt(ratio)])
    share = jnp.minimum(share, 1.0)  # of height and width
    corner = jax.random.uniform(place_key, (2,)) * (1 - share) * size
    part = jax.image.scale_and_translate(
      image.astype(jnp.float32),
      image.shape,
      spatial_dims=(0, 1),
      scale=1 / share,
      translation=-corner / share,
      method="linear",
    )
    return jnp.clip(jnp.round(part), 0, 255).astype(images.dtype)

  return jax.vmap(cut)(jax.random.split(key, len(images)), images)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Flips each image of [n, h, w, c] left to right with probability 1/2."""
  flip = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
  return jnp.where(flip, images[:, :, ::-1], images)


def normalise(
  images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Computes (pixel / 255 - mean) / std.

  Args:
    images: uint8[..., channels].
    mean: mean of every channel, as a fraction of 255.
    std: standard deviation of every channel, as a fraction of 255.

  Returns:
    float32[..., channels].
  """
  shape = (1,) * (images.ndim - 1) + (-1,)
  # One multiplication and one addition per pixel.
  scale = 1 / (255 * jnp.asarray(std, jnp.float32).reshape(shape))
  shift = -jnp.asarray(mean, jnp.float32).reshape(shape) * 255 * scale
  return images.astype(jnp.float32) * scale + shift


def renormalise(images: jax.Array, source, target) -> jax.Array:
  """Changes the mean and deviation by which images are normalised.

  Args:
    images: float[..., channels], normalised with `source`.
    source: (mean, std) of every channel, as a fraction of 255.
    target: (mean, std) of every channel, as a fraction of 255.

  Returns:
    float[..., channels], normalised with `target`.
  """
  shape = (1,) * (images.ndim - 1) + (-1,)
  (mean, std), (new_mean, new_std) = (
    [jnp.asarray(x, jnp.float32).reshape(shape) for x in pair]
    for pair in (source, target)
  )
  return (images * std + mean - new_mean) / new_std
