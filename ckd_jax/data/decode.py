"""Decodes and resizes image files."""

from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ckd_jax.errors import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> PIL's name for them


def decode(
  file: BinaryIO | str, name: str, channels: int, image_size: int | None
) -> np.ndarray:
  """Decodes one image file.

  Args:
    file: an open file, or a path.
    name: of the image, for messages.
    channels: 1, 3 or 4.
    image_size: height and width to resize to, in pixels; None keeps the size.

  Returns:
    uint8[h, w, channels].

  Raises:
    UserError: Pillow cannot read the image, or it is not 8-bit.
  """
  try:
    with Image.open(file) as image:
      # Pillow would clip 16 bits to 8: nearly all white, without an error.
      if image.mode.startswith(("I", "F")):
        raise ValueError("its pixels are not 8-bit")
      pixels = _square(image.convert(MODES[channels]), image_size)
  except UnidentifiedImageError:
    raise UserError(f"cannot decode the image {name}: unknown format") from None
  except Exception as error:  # damaged files raise errors of all kinds
    raise UserError(f"cannot decode the image {name}: {error}") from error
  return pixels.reshape(*pixels.shape[:2], channels)


def resize(images: np.ndarray, image_size: int | None) -> np.ndarray:
  """uint8[n, h, w, c] -> uint8[n, size, size, c]; None leaves them alone."""
  if image_size is None or images.shape[1:3] == (image_size, image_size):
    return images
  flat = images[..., 0] if images.shape[3] == 1 else images
  square = [_square(Image.fromarray(image), image_size) for image in flat]
  return np.stack(square).reshape(-1, image_size, image_size, images.shape[3])


def collect(
  rows: Iterable[tuple[np.ndarray, int, str]], count: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
  """Stacks rows without holding them twice in memory.

  Args:
    rows: (uint8[h, w, c], label, id) of each image.
    count: number of rows.

  Returns:
    uint8[count, h, w, c], int32[count] and the ids.

  Raises:
    UserError: the images differ in size.
  """
  images: np.ndarray = np.empty((count, 0, 0, 0), np.uint8)
  labels, ids = np.empty(count, np.int32), []
  for row, (pixels, label, id_) in enumerate(rows):
    if not ids:
      images = np.empty((count, *pixels.shape), np.uint8)
    if pixels.shape != images.shape[1:]:
      height, width = images.shape[1:3]
      raise UserError(
        f"images differ in size, {ids[0]} is {height}x{width} and {id_} "
        f"{pixels.shape[0]}x{pixels.shape[1]} (height x width): set "
        "dataset.image_size"
      )
    images[row], labels[row] = pixels, label
    ids.append(id_)
  return images, labels, ids


def _square(image: Image.Image, size: int | None) -> np.ndarray:
  if size is not None and image.size != (size, size):
    image = image.resize((size, size), Image.Resampling.BILINEAR)
  return np.asarray(image)
