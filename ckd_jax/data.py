"""Dataset name -> uint8 images, labels and ids that never change, in NumPy.

Rows are in canonical order, which depends on the data alone: the number in a
tensorflow-datasets id (train_16399 is row 16399 of CIFAR-100 as published; the
files are shuffled), the row of an .npz, the sorted paths of a folder. A table
of somebody else's answers without ids is matched to rows by this order.
"""

import difflib
import hashlib
import io
import logging
import os
import pathlib
import re
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from etils import epath

from ckd_jax.errors import UserError, nearest

_CACHE_VERSION = 1  # raise it when the same files decode to other rows
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> what PIL calls them
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


class Split(NamedTuple):
  """Images of one split, in canonical order."""

  images: np.ndarray  # uint8[n, h, w, c]
  labels: np.ndarray  # int32[n]
  ids: np.ndarray  # str[n], stable
  fingerprint: str  # sha256 over ids, labels and pixels in this order


class Dataset(NamedTuple):
  """What a run learns from and what it is measured on."""

  name: str
  train: Split
  test: Split
  class_names: tuple[str, ...]


def load(
  name: str, *, path: str | None = None, image_size: int | None = None
) -> Dataset:
  """Reads a set whole.

  Args:
    name: `digits` (scikit-learn's real 8x8 digits) or `fake` (noise around one
      pattern per class, for debugging), which need no files; `npz`; `folder`;
      otherwise a name of tensorflow-datasets, `name[/config][:version]`. Where
      a set has no labelled test split, its validation split is the test set.
    path: FILE.npz (x_train, y_train, x_test, y_test and perhaps class_names);
      DIR with train/CLASS/*.png and test/CLASS/*.png, .jpg or .jpeg; or the
      data_dir of tensorflow-datasets (default: TFDS_DATA_DIR, or its own).
    image_size: height and width to which images of another size are resized,
      once, when they are decoded (bilinear, anti-aliased).

  Returns:
    A `Dataset`. Greyscale images keep their one channel.

  Raises:
    UserError: the set is unknown, not prepared, damaged or not usable.
  """
  if image_size is not None and image_size < 1:
    raise UserError(f"dataset.image_size is {image_size}: give pixels, say 32")
  if name in ("digits", "fake") and path is not None:
    raise UserError(
      f"dataset {name} reads no files, but dataset.path is {path!r}: leave it "
      "out, or name the set that lies there (npz, folder, or a "
      "tensorflow-datasets name)"
    )
  if name in ("npz", "folder") and not path:
    raise UserError(
      f"dataset {name} needs dataset.path: "
      + ("a .npz file" if name == "npz" else "a folder with train/ and test/")
    )
  source = _SOURCES.get(name)
  train, test, class_names = (
    source(path, image_size) if source else _tfds(name, path, image_size)
  )
  where = f"dataset {name}" + (f" in {path}" if path else "")
  _check(train, test, class_names, where)
  return Dataset(name, train, test, tuple(class_names))


def make_split(
  images: np.ndarray, labels: np.ndarray, ids: Iterable[str]
) -> Split:
  """A split with its fingerprint: uint8[n, h, w, c], integers [n], n names."""
  images = np.ascontiguousarray(images)
  labels = np.asarray(labels, np.int32)
  ids = np.asarray(ids, str)
  digest = hashlib.sha256(repr((images.shape, labels.shape)).encode())
  digest.update("\n".join(ids).encode())
  digest.update(labels.astype("<i4").tobytes())
  digest.update(images.data)
  return Split(images, labels, ids, digest.hexdigest())


def _check(train: Split, test: Split, class_names: list[str], where: str):
  """Raises where the two splits and the class names do not fit together."""
  if train.images.shape[1:] != test.images.shape[1:]:
    raise UserError(
      f"{where}: train images are {_size(train.images[0])} and test images "
      f"{_size(test.images[0])}: set dataset.image_size"
    )
  if len(set(class_names)) < len(class_names):
    raise UserError(f"{where}: two classes have the same name")
  for split, labels in (("train", train.labels), ("test", test.labels)):
    low, high = labels.min(), labels.max()
    if low < 0 or high >= len(class_names):
      wrong = low if low < 0 else high
      raise UserError(
        f"{where}: a {split} label is {wrong}, but the {len(class_names)} "
        f"classes are 0 to {len(class_names) - 1}"
      )


def _size(image: np.ndarray) -> str:
  return "x".join(map(str, image.shape))


# ---- sets that need no decoding ---------------------------------------------


def _digits(path: None, image_size: int | None):
  """1,438 train and 359 test images; ids carry scikit-learn's row.

  The images of one writer follow each other, so that a tail would test on
  other writers than it trains on. Every fifth image has all writers and classes
  in both splits.
  """
  del path
  from sklearn import datasets  # slow to import, and only this set needs it

  digits = datasets.load_digits()
  pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # from 0..16
  images = _resize(pixels[..., None], image_size)
  rows = np.arange(len(images))
  is_test = rows % 5 == 4

  def split(rows):
    ids = [f"digits_{row}" for row in rows]
    return make_split(images[rows], digits.target[rows], ids)

  return split(rows[~is_test]), split(rows[is_test]), _numerals(10)


def _fake(path: None, image_size: int | None):
  """512 train and 256 test images, 32x32x3: one coarse pattern per class."""
  del path
  random = np.random.default_rng(0)
  patterns = random.uniform(64, 192, (10, 4, 4, 3)).repeat(8, 1).repeat(8, 2)

  def split(name, count):
    labels = random.permutation(np.arange(count) % 10)
    noise = random.normal(scale=32, size=(count, 32, 32, 3))
    images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
    return make_split(_resize(images, image_size), labels, _rows(name, count))

  return split("train", 512), split("test", 256), _numerals(10)


def _npz(path: str, image_size: int | None):
  """x_train, y_train, x_test, y_test and perhaps class_names of one file."""
  keys = ("x_train", "y_train", "x_test", "y_test", "class_names")
  try:
    with epath.Path(path).open("rb") as file:
      with zipfile.ZipFile(file) as archive:
        stored = {name.removesuffix(".npy") for name in archive.namelist()}
      file.seek(0)
      with np.load(file, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in keys if key in stored}
  except FileNotFoundError:
    raise UserError(f"dataset.path: there is no file {path}") from None
  except Exception as error:
    raise UserError(f"{path} is not a readable .npz file: {error}") from error

  def split(name):
    try:
      images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
    except KeyError as error:
      raise UserError(
        f"{path} has no array {error}: it needs x_train, y_train, x_test and "
        f"y_test, and has {', '.join(sorted(stored)) or 'none'}"
      ) from None
    if images.dtype != np.uint8:
      raise UserError(
        f"{path}: x_{name} is {images.dtype}, but images are uint8, 0 to 255"
      )
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or not images.size or images.shape[3] not in _MODES:
      raise UserError(
        f"{path}: x_{name} has the shape {arrays[f'x_{name}'].shape}, but "
        "images are [n, height, width, channels] with 1, 3 or 4 channels"
      )
    if labels.dtype.kind not in "iu":
      raise UserError(f"{path}: y_{name} is {labels.dtype}, not integers")
    if labels.shape != images.shape[:1]:
      raise UserError(
        f"{path}: y_{name} has the shape {labels.shape}, but x_{name} has "
        f"{len(images)} images: give one label per image, ({len(images)},)"
      )
    ids = _rows(name, len(images))
    return make_split(_resize(images, image_size), labels, ids)

  train, test = split("train"), split("test")
  names = arrays.get("class_names", np.array(_numerals(train.labels.max() + 1)))
  if names.ndim != 1 or names.dtype.kind != "U":
    raise UserError(
      f"{path}: class_names is {names.dtype}{list(names.shape)}, but it is one "
      "row of text: np.array(['cat', 'dog'])"
    )
  return train, test, names.tolist()


def _rows(split: str, count: int) -> list[str]:
  return [f"{split}_{row}" for row in range(count)]


def _numerals(count: int) -> list[str]:
  return [str(label) for label in range(count)]


def _resize(images: np.ndarray, size: int | None) -> np.ndarray:
  """uint8[n, h, w, c] -> uint8[n, size, size, c], if it is not so already."""
  if size is None or images.shape[1:3] == (size, size):
    return images
  from PIL import Image

  squeeze = images.shape[3] == 1
  return np.stack(
    [
      _pixels(Image.fromarray(image[..., 0] if squeeze else image), size)
      for image in images
    ]
  )


# ---- sets that are decoded once, then cached --------------------------------


def _folder(path: str, image_size: int | None):
  """DIR/{train,test}/CLASS/IMAGE; ids are the paths relative to DIR."""
  root = pathlib.Path(path)

  def folders(split):
    if not (root / split).is_dir():
      raise UserError(
        f"dataset.path: there is no folder {root / split}: a folder set holds "
        "train/CLASS/*.png and test/CLASS/*.png (or .jpg, .jpeg)"
      )
    return sorted(
      folder.name
      for folder in (root / split).iterdir()
      if folder.is_dir() and not folder.name.startswith(".")
    )

  class_names = folders("train")

  def split(name):
    for folder in folders(name):
      if folder not in class_names:
        raise UserError(
          f"{root / name / folder} is a class that {root / 'train'} has not: "
          + nearest(folder, class_names)
        )
    files = {
      file.relative_to(root).as_posix(): file
      for folder in class_names
      for file in (root / name / folder).glob("*")
      if file.suffix.lower() in _IMAGE_SUFFIXES
    }
    if not files:
      raise UserError(f"no .png, .jpg or .jpeg in {root / name}/CLASS/")
    ids = sorted(files)

    def decode():
      rows = (
        (
          _decode(files[id_], "RGB", image_size, files[id_]),
          class_names.index(files[id_].parent.name),
          id_,
        )
        for id_ in ids
      )
      return make_split(*_collect(rows, len(ids)))

    stamps = [(id_, *_stamp(files[id_])) for id_ in ids]
    return _cached(f"folder-{name}", (class_names, stamps, image_size), decode)

  return split("train"), split("test"), class_names


def _tfds(name: str, path: str | None, image_size: int | None):
  """A set prepared by tensorflow-datasets, read without TensorFlow."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its imports deprecate is not ours
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

  path = path or os.environ.get("TFDS_DATA_DIR")
  data_dir = f"data_dir={str(path)!r}, " if path else ""
  prepare = (
    "pip install 'ckd_jax[tfds]' && python -c \"import tensorflow_datasets as "
    f"tfds; tfds.builder({name!r}, {data_dir}file_format='array_record')"
    '.download_and_prepare()"'
  )
  try:
    # The files say all; the set's own code often needs TensorFlow.
    builder = read_only_builder.builder_from_files(name, data_dir=path)
  except Exception:
    known = tfds.list_builders(with_community_datasets=False)
    if re.split("[/:]", name)[0] in known:
      raise UserError(
        f"dataset {name} is not prepared in {path or tfds.core.DATA_DIR}; "
        f"prepare it once with: {prepare}"
      ) from None
    close = difflib.get_close_matches(name, [*_SOURCES, *known], 1, 0.5)
    hint = nearest(name, close or [*_SOURCES, "a name of tensorflow-datasets"])
    raise UserError(f"unknown dataset {name!r}: {hint}") from None

  features = builder.info.features
  image, label = (
    features[key] if key in features else None for key in ("image", "label")
  )
  if (
    not isinstance(image, tfds.features.Image)
    or not isinstance(label, tfds.features.ClassLabel)
    or image.np_dtype != np.uint8
    or image.shape[-1] not in _MODES
  ):
    raise UserError(
      f"dataset {name} is no image classification set: it needs an 8-bit "
      f"'image' and a class 'label', and has {', '.join(sorted(features))}"
    )
  decoders = {
    key: tfds.decode.SkipDecoding()
    for key, feature in features.items()
    if isinstance(feature, tfds.features.Image)
  }

  def source(split):
    try:
      return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError:
      raise UserError(
        f"dataset {name} is prepared as {builder.info.file_format.value}, "
        f"which cannot be read without TensorFlow: delete {builder.data_path}, "
        f"then run: {prepare}"
      ) from None

  def labelled(split):  # imagenet2012 gives every test image the label -1
    return split in builder.info.splits and source(split)[0]["label"] >= 0

  def split(name):
    def decode():
      examples = source(name)
      rows = (
        (
          _decode(
            io.BytesIO(example["image"]), _MODES[image.shape[-1]], image_size,
            f"{row} of {name}",
          ),
          example["label"],
          _text(example.get("id", "")),
        )
        for row, example in enumerate(_batched(examples))
      )
      images, labels, ids = _collect(rows, len(examples))
      if len(set(ids)) < len(ids):
        return make_split(images, labels, _rows(name, len(ids)))
      order = sorted(range(len(ids)), key=lambda row: _canonical(ids[row]))
      return make_split(images[order], labels[order], np.array(ids)[order])

    return decode
