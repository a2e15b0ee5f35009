"""Data sets prepared by tensorflow-datasets, read without TensorFlow.

A set is found by its files alone: the code that prepared it often needs
TensorFlow, and is slow to import.
"""

import contextlib
import difflib
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ckd_jax.data.cache import cached, indexed, stamp
from ckd_jax.data.decode import MODES, collect, decode
from ckd_jax.data.lazy import Lazy, memory
from ckd_jax.data.split import Parts, Split, make_split, row_ids
from ckd_jax.errors import UserError, nearest


def read(
  name: str,
  path: str | None,
  image_size: int | None,
  lazy: bool | None,
  other_names: list[str],
) -> Parts:
  """Reads a prepared set.

  Args:
    name: `name[/config][:version]`.
    path: data_dir of tensorflow-datasets; None is TFDS_DATA_DIR or its default.
    image_size: height and width to resize to, in pixels; None keeps the size.
    lazy: whether images are decoded on access; None: if they would take more
      than a quarter of this machine's memory.
    other_names: names of other data sets, to suggest.

  Returns:
    (train, test, class names).
  """
  builder = opened(name, path, other_names)
  _require_images(name, builder.info.features)
  with one_line(name, builder, path):
    if lazy is None:
      lazy = _bytes(builder, image_size) > memory() / 4
    train = _split(builder, "train", image_size, lazy)
    test = _split(builder, test_split(name, builder), image_size, lazy)
  return train, test, tuple(builder.info.features["label"].names)


def _bytes(builder, image_size: int | None) -> int:
  """Size of the decoded train split; unknown sides count as 0."""
  *size, channels = builder.info.features["image"].shape
  height, width = (image_size,) * 2 if image_size else (n or 0 for n in size)
  return builder.info.splits["train"].num_examples * height * width * channels


def library() -> Any:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside the library
    import tensorflow_datasets
  return tensorflow_datasets


def opened(name: str, path: str | None, other_names: list[str]) -> Any:
  tfds = library()
  from tensorflow_datasets.core import read_only_builder

  path = path or os.environ.get("TFDS_DATA_DIR")
  try:
    with _no_code(tfds):
      return read_only_builder.builder_from_files(name, data_dir=path)
  except ValueError:  # not found, or not the form of a name
    pass
  except Exception as error:  # a damaged dataset_info.json or features.json
    raise UserError(
      f"dataset {name} is prepared in {path} but cannot be opened ({error}): "
      f"delete it, then run: {_command(name, path)}"
    ) from error
  known = tfds.list_builders(with_community_datasets=False)
  if re.split("[/:]", name)[0] in known:
    folder = path or tfds.core.constants.DATA_DIR
    raise UserError(
      f"dataset {name} is not prepared in {folder}; prepare it once with: "
      f"{_command(name, path)}"
    )
  names = [*other_names, *known]
  close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  hint = nearest(name, close or other_names)
  more = "" if close else ", or a name of tensorflow-datasets"
  raise UserError(f"unknown dataset {name!r}: {hint}{more}")


@contextlib.contextmanager
def _no_code(tfds: Any) -> Iterator[None]:
  """Refuses features that tensorflow-datasets would import a module for.

  features.json names the class of every feature, and a name that is not known
  is imported, from wherever Python finds it.
  """
  kinds = tfds.features.FeatureConnector
  before = kinds.__dict__["cls_from_name"]

  def known_only(cls, name: str):
    if name not in cls._registered_features:
      raise RuntimeError(f"a file may not name code, and names {name!r}")
    return before.__func__(cls, name)

  kinds.cls_from_name = classmethod(known_only)
  try:
    yield
  finally:
    kinds.cls_from_name = before


def _command(name: str, path: str | None) -> str:
  data_dir = f"data_dir={os.fspath(path)!r}, " if path else ""
  return (
    "pip install 'ckd_jax[tfds]' && python -c \"import tensorflow_datasets as "
    f"tfds; tfds.builder({name!r}, {data_dir}file_format='array_record')"
    '.download_and_prepare()"'
  )


@contextlib.contextmanager
def one_line(name: str, builder, path: str | None) -> Iterator[None]:
  """Turns errors of the readers into one line with the remedy."""
  remedy = f"delete {builder.data_path}, then run: {_command(name, path)}"
  try:
    yield
  except UserError:
    raise
  except NotImplementedError:
    raise UserError(
      f"dataset {name} is prepared as {builder.info.file_format.value}, which "
      f"only TensorFlow reads: {remedy}"
    ) from None
  except Exception as error:  # the readers raise errors of any type
    raise UserError(
      f"dataset {name} is prepared but damaged ({error}): {remedy}"
    ) from error


def _require_images(name: str, features) -> None:
  kinds = library().features
  image: Any
  image, label = (
    features[key] if key in features else None for key in ("image", "label")
  )
  if not (
    isinstance(image, kinds.Image)
    and isinstance(label, kinds.ClassLabel)
    and image.np_dtype == np.uint8
    and image.shape[-1] in MODES
  ):
    raise UserError(
      f"dataset {name} is not for image classification: it needs an 8-bit "
      f"`image` and a class `label`, and has {', '.join(sorted(features))}"
    )


def test_split(name: str, builder, label: str | None = "label") -> str:
  """test, else validation; ImageNet's test images all have the label -1."""
  splits = builder.info.splits
  for split in ("test", "validation"):
    if split in splits:
      if label is None or source(builder, split)[0][label] >= 0:
        return split
  raise UserError(
    f"dataset {name} has no labelled test or validation split, only "
    f"{', '.join(splits)}: cut one off and load both as npz (or text)"
  )


def source(builder, split: str) -> Any:
  """Examples in the shuffled order of the files, images still encoded."""
  tfds = library()
  decoders = {
    key: tfds.decode.SkipDecoding()
    for key, feature in builder.info.features.items()
    if isinstance(feature, tfds.features.Image)
  }
  return builder.as_data_source(split, decoders=decoders)


def _split(builder, split: str, image_size: int | None, lazy: bool) -> Split:
  features = builder.info.features
  channels = features["image"].shape[-1]

  def row_id(position, example):
    if "id" not in features:
      return f"{split}_{position}"
    id_ = example["id"]
    return id_.decode() if isinstance(id_, bytes) else str(id_)

  def row(position, example):
    id_ = row_id(position, example)
    if not example["image"]:  # a file that was cut off reads like this
      raise ValueError(f"image {position} of {split} is missing")
    file = io.BytesIO(example["image"])
    return decode(file, id_, channels, image_size), example["label"], id_

  def decode_all():
    examples = source(builder, split)
    rows = (row(*pair) for pair in enumerate(batched(examples)))
    images, labels, ids = collect(rows, len(examples))
    ids, order = canonical(split, ids)
    return make_split(images[order], labels[order], ids)

  info = builder.info.splits[split]
  stamps = [stamp(file) for file in info.filepaths]
  key = (builder.info.full_name, split, info.shard_lengths, stamps, image_size)
  name = f"{builder.info.full_name}-{split}"
  if not lazy:
    return cached(name, key, decode_all)
  examples = source(builder, split)

  def images(order):
    def read(number):
      position = int(order[number])
      return row(position, examples[position])[0]

    return Lazy(read, (len(order), *row(0, examples[0])[0].shape))

  def look():
    known = [
      (example["label"], row_id(position, example))
      for position, example in enumerate(batched(examples))
    ]
    labels, ids = zip(*known, strict=True)
    ids, order = canonical(split, ids)
    labels = np.asarray(labels)[order]
    return order, *make_split(images(order), labels, ids)[1:4]

  order, labels, ids, fingerprint = indexed(name, key, look)
  return Split(images(order), labels, ids, str(fingerprint))


def canonical(split: str, ids) -> tuple[np.ndarray, np.ndarray]:
  """Ids in canonical order, and the order as int[n]."""
  if len(set(ids)) < len(ids):
    ids = row_ids(split, len(ids))
  order = sorted(range(len(ids)), key=lambda row: _number(ids[row]))
  return np.array(ids)[order], np.array(order)


def batched(examples: Any, size: int = 1000) -> Iterator[dict]:
  """Every example; reading many at once is three times as fast."""
  for start in range(0, len(examples), size):
    stop = min(start + size, len(examples))
    yield from examples.__getitems__(list(range(start, stop)))


def _number(id_: str) -> tuple[int, str]:
  """Sorts ids by their last number: train_9 before train_10."""
  digits = re.findall("[0-9]+", id_)
  return int(digits[-1]) if digits else -1, id_
