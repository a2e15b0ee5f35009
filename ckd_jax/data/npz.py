"""A data set in one .npz: x_train, y_train, x_test, y_test, class_names."""

import numpy as np
from etils import epath

from ckd_jax.data.decode import MODES, resize
from ckd_jax.data.split import Parts, Split, make_split, numerals, row_ids
from ckd_jax.errors import UserError


def read(path: str, image_size: int | None, lazy: bool | None = None) -> Parts:
  """Returns (train, test, class names); ids are rows."""
  del lazy  # the images are arrays already
  arrays = _arrays(path)
  train, test = (
    _split(path, arrays, name, image_size) for name in ("train", "test")
  )
  names = arrays.get("class_names")
  if names is None:
    return train, test, numerals(_count_classes(path, train))
  if names.ndim != 1 or names.dtype.kind != "U":
    raise UserError(
      f"{path}: class_names is {names.dtype} of shape {names.shape}, but it is "
      "one row of text, np.array(['cat', 'dog'])"
    )
  return train, test, tuple(names.tolist())


def _count_classes(path: str, train: Split) -> int:
  """Infers the class count; refuses labels too large to be classes."""
  classes = max(int(train.labels.max()) + 1, 1)
  if classes > max(1000, 10 * len(train.labels)):
    raise UserError(
      f"{path}: a train label is {classes - 1}, but there are only "
      f"{len(train.labels)} train images: number the classes from 0, or give "
      "class_names"
    )
  return classes


def _arrays(path: str) -> dict[str, np.ndarray]:
  wanted = {"x_train", "y_train", "x_test", "y_test"}
  try:
    with (
      epath.Path(path).open("rb") as file,
      np.load(file, allow_pickle=False) as archive,
    ):
      stored = archive.files
      keys = (wanted | {"class_names"}) & set(stored)
      arrays = {key: archive[key] for key in keys}
  except FileNotFoundError:
    raise UserError(f"dataset.path: there is no file {path}") from None
  except Exception as error:  # zip, header and pickle errors are of any type
    raise UserError(f"{path} is no readable .npz file: {error}") from error
  if missing := sorted(wanted - keys):
    raise UserError(
      f"{path} lacks the array {missing[0]}: it needs x_train, y_train, x_test "
      f"and y_test, and has {', '.join(sorted(stored)) or 'none'}"
    )
  return arrays


def _split(path: str, arrays: dict, name: str, image_size: int | None) -> Split:
  images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
  if images.dtype != np.uint8:
    raise UserError(
      f"{path}: x_{name} is {images.dtype}, but images are uint8, 0 to 255"
    )
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or not images.size or images.shape[3] not in MODES:
    raise UserError(
      f"{path}: x_{name} has the shape {arrays[f'x_{name}'].shape}, but images "
      "are [n, height, width, channels] with 1, 3 or 4 channels"
    )
  if labels.dtype.kind not in "iu":
    raise UserError(
      f"{path}: y_{name} is {labels.dtype}, but labels are integers"
    )
  if labels.shape != images.shape[:1]:
    raise UserError(
      f"{path}: y_{name} has the shape {labels.shape}, but x_{name} holds "
      f"{len(images)} images: give one label per image, ({len(images)},)"
    )
  images = resize(images, image_size)
  try:
    return make_split(images, labels, row_ids(name, len(images)))
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
