"""Crops and flips against every possible window; normalisation by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ckd_jax import augment

HEIGHT, WIDTH, PADDING, COUNT = 4, 5, 2, 6000
WINDOWS = [name for name in augment.CHOICES if "resized" not in name]
# Every value once, and none of them that of the border.
IMAGE = 1 + np.arange(HEIGHT * WIDTH * 2, dtype=np.uint8).reshape(4, 5, 2)


def windows(crop, flip):
  """All that may become of IMAGE, as bytes."""
  shifts = itertools.product(range(2 * PADDING + 1), repeat=2)
  padded = np.zeros((HEIGHT + 2 * PADDING, WIDTH + 2 * PADDING, 2), np.uint8)
  padded[PADDING:-PADDING, PADDING:-PADDING] = IMAGE
  if not crop:
    shifts = [(PADDING, PADDING)]
  for top, left in shifts:
    window = padded[top : top + HEIGHT, left : left + WIDTH]
    yield window.tobytes()
    if flip:
      yield window[:, ::-1].tobytes()


def drawn(name):
  images = jnp.asarray(np.tile(IMAGE, (COUNT, 1, 1, 1)))
  out = jax.jit(augment.make(name, PADDING))(jax.random.key(0), images)
  assert out.shape == images.shape and out.dtype == jnp.uint8
  return [image.tobytes() for image in np.asarray(out)]


@pytest.mark.parametrize("name", WINDOWS)
def test_every_window_appears_equally_often_and_no_other(name):
  crop, flip = augment.CHOICES[name]
  wanted = list(windows(crop, flip))
  assert len(set(wanted)) == len(wanted) == (25 if crop else 1) * (1 + flip)
  seen = drawn(name)
  assert set(seen) == set(wanted)
  counts = np.array([seen.count(window) for window in wanted])
  expected = COUNT / len(wanted)
  # 4.5 sigma of 49 degrees of freedom, and more for fewer
  assert np.sum((counts - expected) ** 2 / expected) < 94


@pytest.mark.parametrize("padding", [0, 1, 3, 4, 9])
def test_a_crop_is_a_slice_of_the_padded_image(padding):
  draw = np.random.default_rng(padding)
  images = draw.integers(0, 256, (32, 6, 7, 3), np.uint8)
  key = jax.random.key(padding)
  # The draws of random_crop: a seed keeps its crops from version to version.
  corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)
  border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  expected = [
    image[top : top + 6, left : left + 7]
    for image, (top, left) in zip(np.pad(images, border), corners, strict=True)
  ]
  out = jax.jit(augment.random_crop, static_argnums=2)(key, images, padding)
  np.testing.assert_array_equal(out, expected)


def test_a_resized_crop_is_pillows_of_the_same_part():
  """A smooth image tells which part was cut: its values are its places."""
  size = 64
  ramp = np.linspace(0, 250, size)
  image = np.stack(np.meshgrid(ramp, ramp, indexing="ij"), -1)
  image = np.concatenate([image, image[..., :1]], -1).astype(np.uint8)
  images = jnp.asarray(np.tile(image, (300, 1, 1, 1)))
  cut = np.asarray(
    jax.jit(augment.random_resized_crop)(jax.random.key(0), images), float
  )
  assert cut.shape == images.shape
  top, bottom = cut[:, 0].mean(1)[:, 0], cut[:, -1].mean(1)[:, 0]
  left, right = cut[:, :, 0].mean(1)[:, 1], cut[:, :, -1].mean(1)[:, 1]
  heights, widths = (bottom - top) / 250, (right - left) / 250
  areas, ratios = heights * widths, widths / heights
  assert 0.05 < areas.min() < 0.15 and 0.9 < areas.max() <= 1.01
  assert 0.7 < ratios.min() < 0.85 and 1.2 < ratios.max() < 1.42
  for place in range(5):
    box = np.array([left[place], top[place], right[place], bottom[place]]) * (
      size - 1
    ) / 250 + [0, 0, 1, 1]
    part = Image.fromarray(image).resize(
      (size, size), Image.Resampling.BILINEAR, box=tuple(np.clip(box, 0, size))
    )
    assert np.abs(np.asarray(part, float) - cut[place]).mean() < 6


def test_the_same_key_gives_the_same_images_and_another_key_others():
  images = jnp.asarray(np.tile(IMAGE, (8, 1, 1, 1)))
  make = augment.make("crop_flip", PADDING)
  first, again, other = (make(jax.random.key(k), images) for k in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_no_padding_crops_nothing():
  images = jnp.asarray(IMAGE[None])
  same = augment.make("crop", 0)(jax.random.key(0), images)
  np.testing.assert_array_equal(same, images)


def test_normalise_is_the_textbook_formula():
  mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
  images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3))
  images = images.astype(np.uint8)
  value = jax.jit(lambda x: augment.normalise(x, mean, std))(images)
  expected = (images / 255 - np.array(mean)) / np.array(std)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_one_mean_serves_all_channels():
  images = jnp.asarray(IMAGE[None])
  value = augment.normalise(images, (0.5,), (0.25,))
  np.testing.assert_allclose(value, (IMAGE[None] / 255 - 0.5) / 0.25, rtol=1e-5)


def test_renormalise_changes_from_one_to_the_other():
  source = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
  target = (0.1, 0.2, 0.6), (0.5, 0.4, 0.3)
  images = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3))
  images = jnp.asarray(images.astype(np.uint8))
  value = augment.renormalise(
    augment.normalise(images, *source), source, target
  )
  expected = augment.normalise(images, *target)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
