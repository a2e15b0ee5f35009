"""A data set of files: DIR/train/CLASS/*.png and DIR/test/CLASS/*.png."""

import pathlib

import numpy as np

from ckd_jax.data.cache import cached, indexed, stamp
from ckd_jax.data.decode import collect, decode
from ckd_jax.data.lazy import Lazy
from ckd_jax.data.split import Parts, Split, make_split
from ckd_jax.errors import UserError, nearest

_SUFFIXES = {".png", ".jpg", ".jpeg"}


def read(path: str, image_size: int | None, lazy: bool | None) -> Parts:
  """Returns (train, test, class names); ids are paths relative to `path`."""
  root = pathlib.Path(path)
  class_names = _classes(root / "train")
  for folder in _classes(root / "test"):
    if folder not in class_names:
      raise UserError(
        f"{root / 'test' / folder} is a class without a folder in "
        f"{root / 'train'}: {nearest(folder, class_names)}"
      )
  train, test = (
    _split(root, split, class_names, image_size, lazy)
    for split in ("train", "test")
  )
  return train, test, class_names


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
  if not folder.is_dir():
    raise UserError(
      f"there is no folder {folder}: dataset.path must hold train/CLASS/*.png "
      "and test/CLASS/*.png (or .jpg, .jpeg)"
    )
  visible = (path for path in folder.iterdir() if path.name[0] != ".")
  return tuple(sorted(path.name for path in visible if path.is_dir()))


def _split(
  root: pathlib.Path,
  split: str,
  class_names: tuple[str, ...],
  image_size: int | None,
  lazy: bool | None,
) -> Split:
  ids = sorted(
    file.relative_to(root).as_posix()
    for name in class_names
    for file in (root / split / name).glob("[!.]*")
    if file.suffix.lower() in _SUFFIXES
  )
  if not ids:
    raise UserError(f"there is no .png, .jpg or .jpeg in {root / split}/CLASS")

  def row(id_):
    label = class_names.index(pathlib.PurePosixPath(id_).parent.name)
    return decode(root / id_, root / id_, 3, image_size), label, id_

  def decode_all():
    return make_split(*collect(map(row, ids), len(ids)))

  stamps = [stamp(root / id_) for id_ in ids]
  key = (class_names, stamps, image_size)
  if lazy:
    shape = (len(ids), *row(ids[0])[0].shape)
    images = Lazy(lambda number: row(ids[number])[0], shape)
    parts = [pathlib.PurePosixPath(id_).parent.name for id_ in ids]
    labels = np.array([class_names.index(part) for part in parts], np.int32)

    def look():
      return (np.array(make_split(images, labels, ids).fingerprint),)

    (fingerprint,) = indexed(f"folder-{split}", key, look)
    return Split(images, labels, np.asarray(ids, str), str(fingerprint))
  return cached(f"folder-{split}", key, decode_all)
