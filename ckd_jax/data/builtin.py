"""Sets that need no files: real digits to try things on, and fake images."""

from typing import Any

import numpy as np

from ckd_jax.data.decode import resize
from ckd_jax.data.split import Parts, make_split, numerals, row_ids


def digits(image_size: int | None) -> Parts:
  """1,438 train and 359 test images, 8x8x1; ids carry scikit-learn's row.

  Consecutive images come from the same writer, so a tail would test on other
  writers than it trains on: every fifth image has all of them in both splits.
  """
  from sklearn import datasets  # slow to import, and only this set needs it

  stored: Any = datasets.load_digits()
  pixels = np.round(stored.images * (255 / 16)).astype(np.uint8)  # from 0..16
  images = resize(pixels[..., None], image_size)
  rows = np.arange(len(images))

  def split(rows):
    ids = [f"digits_{row}" for row in rows]
    return make_split(images[rows], stored.target[rows], ids)

  return split(rows[rows % 5 != 4]), split(rows[rows % 5 == 4]), numerals(10)


def fake(image_size: int | None) -> Parts:
  """512 train and 256 test images, 32x32x3: noise on one pattern per class."""
  random = np.random.default_rng(0)
  patterns = random.uniform(64, 192, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)

  def split(name, count):
    labels = random.permutation(np.arange(count) % 10)
    noise = random.normal(scale=32, size=(count, 32, 32, 3))
    images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    return make_split(resize(images, image_size), labels, row_ids(name, count))

  return split("train", 512), split("test", 256), numerals(10)


SOURCES = {"digits": digits, "fake": fake}
