"""A folder of class folders."""

import numpy as np
from PIL import Image

from ckd_jax import data
from tests.helpers.sets import assert_same, error_line, make_folder, png


def test_folder_round_trip(tmp_path):
  pixels = make_folder(tmp_path / "set")
  loaded = data.load("folder", path=tmp_path / "set")
  assert loaded.class_names == ("ant", "owl")
  assert loaded.train.ids.tolist() == [
    "train/ant/c.png",
    "train/ant/grey.png",
    "train/owl/a.PNG",
    "train/owl/b.png",
  ]
  np.testing.assert_array_equal(loaded.train.labels, [0, 0, 1, 1])
  np.testing.assert_array_equal(loaded.test.labels, [0, 1])
  for split in (loaded.train, loaded.test):
    for image, id_ in zip(split.inputs, split.ids, strict=True):
      np.testing.assert_array_equal(image, pixels[id_])


def test_folder_of_jpegs_of_many_sizes(tmp_path):
  random = np.random.default_rng(2)
  for number, name in enumerate(("train/a/1", "train/a/2", "test/a/3")):
    file = tmp_path / f"{name}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 256, (8 + number, 9, 3), np.uint8)
    file.write_bytes(png(pixels, "JPEG").read())
  message = error_line("folder", path=tmp_path)
  assert "train/a/1.jpg is 8x9 and train/a/2.jpg 9x9" in message
  assert "set dataset.image_size" in message
  loaded = data.load("folder", path=tmp_path, image_size=5)
  with Image.open(tmp_path / "test/a/3.jpg") as image:
    wanted = np.asarray(image.resize((5, 5), Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(loaded.test.inputs[0], wanted)


def test_folder_mistakes(tmp_path):
  assert "there is no folder" in error_line("folder", path=tmp_path / "none")
  make_folder(tmp_path)
  image = tmp_path / "train/owl/b.png"
  whole = image.read_bytes()
  for damaged in (b"", b"hello", whole[:-30]):
    image.write_bytes(damaged)
    message = error_line("folder", path=tmp_path)
    assert message.startswith(f"cannot decode the image {image}")
  deep = np.full((6, 6), 40000, np.uint16)
  image.write_bytes(png(deep).read())
  assert "not 8-bit" in error_line("folder", path=tmp_path)
  image.write_bytes(whole)
  (tmp_path / "test/owls").mkdir()
  assert "did you mean 'owl'?" in error_line("folder", path=tmp_path)
  (tmp_path / "test/owls").rmdir()
  for file in (tmp_path / "test").glob("*/*"):
    file.unlink()
  assert "there is no .png" in error_line("folder", path=tmp_path)


def test_folder_images_that_stay_in_their_files(tmp_path):
  for split, count in (("train", 7), ("test", 3)):
    for row in range(count):
      file = tmp_path / split / ("ab"[row % 2]) / f"{row}.png"
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(png(np.full((5, 6, 3), row, np.uint8)).read())
  whole = data.load("folder", path=tmp_path, image_size=4)
  lazy = data.load("folder", path=tmp_path, image_size=4, lazy=True)
  assert isinstance(lazy.test.inputs, data.Lazy)
  assert_same(whole, lazy)
