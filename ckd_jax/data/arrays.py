"""A data set from arrays in memory."""

from typing import Any

import numpy as np

from ckd_jax.data.split import Parts, make_split, numerals, row_ids
from ckd_jax.errors import UserError

Arrays = tuple[Any, Any]  # (images, labels)


def read_arrays(train: Arrays, test: Arrays | None = None) -> Parts:
  """Makes splits of arrays; ids are rows.

  Args:
    train: images uint8[n, h, w, c] (or [n, h, w], grey) and labels int[n].
    test: images and labels of the test split; None is an empty one.

  Returns:
    The training split, the test split, and the class names "0", "1", ...

  Raises:
    UserError: types or shapes are wrong, or do not match each other.
  """
  images, labels = _checked("train", *train)
  if not len(images):
    raise UserError("data holds no image: give (images, labels)")
  first = (images[:0], labels[:0])
  test_images, test_labels = _checked("test", *test) if test else first
  if len(test_images) and test_images.shape[1:] != images.shape[1:]:
    raise UserError(
      f"test images are {test_images.shape[1:]} and training images "
      f"{images.shape[1:]}: give both in one size"
    )
  classes = int(max(labels.max(), test_labels.max(initial=0))) + 1
  splits = [
    make_split(x, y, row_ids(name, len(x)))
    for name, x, y in (
      ("train", images, labels),
      ("test", test_images, test_labels),
    )
  ]
  return splits[0], splits[1], numerals(classes)


def _checked(name: str, images, labels) -> tuple[np.ndarray, np.ndarray]:
  images, labels = np.asarray(images), np.asarray(labels)
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or images.dtype != np.uint8:
    raise UserError(
      f"{name} images are {images.dtype} of shape {images.shape}: give uint8 "
      "[n, height, width, channels], pixels from 0 to 255"
    )
  if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
    raise UserError(
      f"{name} labels are {labels.dtype} of shape {labels.shape}: give one "
      f"integer for each of the {len(images)} images"
    )
  if len(labels) and labels.min() < 0:
    raise UserError(
      f"a {name} label is {labels.min()}: number the classes from 0"
    )
  return images, labels
