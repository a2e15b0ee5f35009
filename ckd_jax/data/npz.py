"""A data set in one .npz: x_train, y_train, x_test, y_test, class_names."""

import math

import numpy as np
from etils import epath

from ckd_jax.data.decode import MODES, resize
from ckd_jax.data.lazy import memory
from ckd_jax.data.members import Member, read_members
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
  """The arrays; shapes and types are checked before anything is unpacked."""
  wanted = {"x_train", "y_train", "x_test", "y_test"}
  try:
    with (
      epath.Path(path).open("rb") as file,
      np.load(file, allow_pickle=False) as archive,
    ):
      members = read_members(file)
      stored = archive.files
      keys = (wanted | {"class_names"}) & members.keys()
      if missing := sorted(wanted - keys):
        raise UserError(
          f"{path} lacks the array {missing[0]}: it needs x_train, y_train, "
          "x_test and y_test, and has "
          f"{', '.join(sorted(stored)) or 'none'}"
        )
      for name in ("train", "test"):
        _check_split(path, name, members[f"x_{name}"], members[f"y_{name}"])
      _check_size(path, {key: members[key] for key in keys})
      arrays = {key: archive[key] for key in keys}
  except UserError:
    raise
  except FileNotFoundError:
    raise UserError(f"dataset.path: there is no file {path}") from None
  except Exception as error:  # zip, header and pickle errors are of any type
    raise UserError(f"{path} is no readable .npz file: {error}") from error
  return arrays


def _check_size(path: str, members: dict[str, Member]) -> None:
  """Refuses arrays that would not fit into memory."""
  size = sum(math.prod(x.shape) * x.dtype.itemsize for x in members.values())
  if size > memory():
    raise UserError(
      f"{path} would take {size / 1e9:,.1f} GB, and this machine has"
      f" {memory() / 1e9:,.1f} GB: give a set of files (dataset.name=folder)"
    )


def _check_split(path: str, name: str, images: Member, labels: Member) -> None:
  """Refuses what are no images and labels, by their headers alone."""
  if images.dtype != np.uint8:
    raise UserError(
      f"{path}: x_{name} is {images.dtype}, but images are uint8, 0 to 255"
    )
  shape = images.shape if len(images.shape) != 3 else (*images.shape, 1)
  if len(shape) != 4 or not math.prod(shape) or shape[3] not in MODES:
    raise UserError(
      f"{path}: x_{name} has the shape {images.shape}, but images are [n, "
      "height, width, channels] with 1, 3 or 4 channels"
    )
  if labels.dtype.kind not in "iu":
    raise UserError(
      f"{path}: y_{name} is {labels.dtype}, but labels are integers"
    )
  if labels.shape != shape[:1]:
    raise UserError(
      f"{path}: y_{name} has the shape {labels.shape}, but x_{name} holds "
      f"{shape[0]} images: give one label per image, ({shape[0]},)"
    )


def _split(path: str, arrays: dict, name: str, image_size: int | None) -> Split:
  images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
  if images.ndim == 3:
    images = images[..., None]
  images = resize(images, image_size)
  try:
    return make_split(images, labels, row_ids(name, len(images)))
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
