"""Small data sets on disk, and checks of how they are loaded."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ckd_jax import data
from ckd_jax.errors import UserError


def error_line(*arguments, **keywords):
  with pytest.raises(UserError) as error:
    data.load(*arguments, **keywords)
  message = str(error.value)
  assert "\n" not in message
  return message


def assert_same(one: data.Dataset, other: data.Dataset):
  assert one.class_names == other.class_names
  for left, right in ((one.train, other.train), (one.test, other.test)):
    for a, b in zip(left, right, strict=True):
      np.testing.assert_array_equal(a, b)
      assert np.asarray(a).dtype == np.asarray(b).dtype


def png(pixels, kind="PNG", **keywords) -> io.BytesIO:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **keywords)
  file.seek(0)
  return file


def make_folder(root, side=6):
  """Two classes; PNG, greyscale PNG, palette PNG and an upper-case suffix."""
  random = np.random.default_rng(1)
  pixels = {}
  for name in (
    "train/owl/b.png",
    "train/owl/a.PNG",
    "train/ant/c.png",
    "test/owl/z.png",
    "test/ant/y.png",
  ):
    pixels[name] = random.integers(0, 256, (side, side, 3), np.uint8)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(png(pixels[name]).read())
  grey = random.integers(0, 256, (side, side), np.uint8)
  (root / "train/ant/grey.png").write_bytes(png(grey).read())
  pixels["train/ant/grey.png"] = grey[..., None].repeat(3, 2)
  (root / "train/owl/notes.txt").write_text("no image")
  (root / "train/.hidden").mkdir()
  (root / "train/owl/.thumb.png").write_text("no image")
  return pixels


def refuse(*arguments):
  raise AssertionError("decoded again")


def prepare(data_dir, set_name, splits, **features):
  """Prepares a set as a user would, but without TensorFlow."""

  class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = set_name
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      kinds = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=kinds)

    def _split_generators(self, dl_manager):
      return {split: enumerate(examples) for split, examples in splits.items()}

    def _generate_examples(self):
      raise NotImplementedError

  tfds.disable_progress_bar()
  builder = Builder(data_dir=data_dir, file_format="array_record")
  builder.download_and_prepare()
  return pathlib.Path(builder.data_path)


IMAGE = tfds.features.Image(shape=(8, 8, 3))
LABEL = tfds.features.ClassLabel(names=["cat", "dog", "eel"])


def tiny(count, split):
  return [
    {
      "image": png(np.full((8, 8, 3), row, np.uint8)),
      "label": row % 3,
      "id": f"{split}_{row}",
    }
    for row in range(count)
  ]
