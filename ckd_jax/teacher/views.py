"""Views for the teacher: the images themselves, or one fixed variation."""

import hashlib
from collections.abc import Sequence

import numpy as np

VIEWS = ("augmented", "clean")


def augmented(
  images: np.ndarray, ids: Sequence[str], seed: int, pad: int
) -> np.ndarray:
  """One random crop and flip per image, the same for the same seed and id.

  Args:
    images: uint8[n, h, w, c].
    ids: str[n], the stable ids of the images.
    seed: with the id, determines an image's crop and flip.
    pad: pixels of black border from which the crop is taken.

  Returns:
    uint8[n, h, w, c].
  """
  height, width = images.shape[1:3]
  border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
  result = np.empty_like(images)
  for row, (image, name) in enumerate(
    zip(np.pad(images, border), ids, strict=True)
  ):
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    draw = np.random.default_rng(int.from_bytes(digest))
    top, left = draw.integers(2 * pad + 1, size=2)
    image = image[top : top + height, left : left + width]
    result[row] = image[:, ::-1] if draw.random() < 0.5 else image
  return result
