"""data.load: real sets, canonical order, the cache, one line per mistake."""

import hashlib
import io
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ckd_jax import data
from ckd_jax.data import folder as folder_source
from ckd_jax.data import prepared
from ckd_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """Every test decodes for itself and leaves nothing in the home directory."""
  monkeypatch.setenv("CKD_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return tmp_path / "cache"


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


# ---- built-in sets and the fingerprint --------------------------------------


def test_digits_are_scikit_learns():
  from sklearn import datasets

  stored = datasets.load_digits()
  digits = data.load("digits")
  assert digits.train.images.shape == (1438, 8, 8, 1)
  assert digits.test.images.shape == (359, 8, 8, 1)
  assert digits.class_names == tuple("0123456789")
  seen = []
  for split in (digits.train, digits.test):
    rows = [int(id_.removeprefix("digits_")) for id_ in split.ids]
    assert rows == sorted(rows)
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.labels, stored.target[rows])
    levels = split.images[..., 0] / 255 * 16
    assert np.abs(levels - stored.images[rows]).max() <= 0.5 * 16 / 255 + 1e-9
    assert split.images.max() == 255
    assert set(split.labels) == set(range(10))
    seen += rows
  assert sorted(seen) == list(range(1797))
  assert digits.test.ids[:2].tolist() == ["digits_4", "digits_9"]


def test_fingerprints_do_not_change_between_versions():
  """Tables that were paid for carry them."""
  assert data.load("digits").train.fingerprint == (
    "f50ac3baa28ad98f7e1ec49a934c2ec71730dae5fbf590edfb7f87b51a1b82fa"
  )


def test_fingerprint_by_hand():
  images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
  split = data.make_split(images, [258, 1], ["a_0", "b_1"])
  by_hand = hashlib.sha256(
    b"((2, 2, 2, 3), (2,))"
    + b"a_0\nb_1"
    + bytes([2, 1, 0, 0, 1, 0, 0, 0])
    + bytes(range(24))
  )
  assert split.fingerprint == by_hand.hexdigest()
  strided = np.asfortranarray(images)
  same = data.make_split(strided, np.array([258, 1], np.uint16), ("a_0", "b_1"))
  assert same.fingerprint == split.fingerprint
  others = [
    data.make_split(images ^ 1, [258, 1], ["a_0", "b_1"]),
    data.make_split(images, [258, 0], ["a_0", "b_1"]),
    data.make_split(images, [258, 1], ["a_0", "b_2"]),
    data.make_split(images[::-1], [1, 258], ["b_1", "a_0"]),
    data.make_split(images.reshape(2, 1, 4, 3), [258, 1], ["a_0", "b_1"]),
  ]
  assert len({split.fingerprint, *(o.fingerprint for o in others)}) == 6


def test_fake_can_be_learned_and_is_always_the_same():
  fake = data.load("fake")
  assert fake.train.images.shape == (512, 32, 32, 3)
  assert fake.test.images.shape == (256, 32, 32, 3)
  assert_same(fake, data.load("fake"))
  images, labels = fake.train.images.astype(float), fake.train.labels
  means = np.stack([images[labels == c].mean(0) for c in range(10)])
  far = fake.test.images[:, None] - means
  guess = np.square(far).mean((2, 3, 4)).argmin(1)
  assert (guess == fake.test.labels).mean() > 0.99
  assert fake.train.ids[12] == "train_12" and fake.test.ids[5] == "test_5"


def test_image_size_is_pillows_bilinear():
  small, large = data.load("digits"), data.load("digits", image_size=20)
  assert large.test.images.shape == (359, 20, 20, 1)
  wanted = Image.fromarray(small.test.images[3, ..., 0]).resize(
    (20, 20), Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(large.test.images[3, ..., 0], wanted)
  assert_same(small, data.load("digits", image_size=8))
  assert data.load("fake", image_size=8).test.images.shape == (256, 8, 8, 3)


def test_a_path_is_never_ignored():
  assert "dataset.path is '/x'" in error_line("digits", path="/x")
  assert "dataset.path is ''" in error_line("fake", path="")
  assert "needs dataset.path" in error_line("npz")
  assert "needs dataset.path" in error_line("folder")
  assert "image_size is 0" in error_line("digits", image_size=0)


# ---- npz --------------------------------------------------------------------


def arrays(**changes):
  random = np.random.default_rng(0)
  default = {
    "x_train": random.integers(0, 256, (6, 4, 5, 3), np.uint8),
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": random.integers(0, 256, (3, 4, 5, 3), np.uint8),
    "y_test": np.array([2, 1, 0], np.uint8),
  }
  merged = {**default, **changes}
  return {key: value for key, value in merged.items() if value is not None}


def save(path, **changes):
  np.savez(path, **arrays(**changes))
  return str(path)


def test_npz_round_trip(tmp_path):
  names = np.array(["cat", "dog", "eel"])
  path = save(tmp_path / "set.npz", class_names=names)
  loaded, stored = data.load("npz", path=path), arrays()
  np.testing.assert_array_equal(loaded.train.images, stored["x_train"])
  np.testing.assert_array_equal(loaded.test.images, stored["x_test"])
  np.testing.assert_array_equal(loaded.test.labels, [2, 1, 0])
  assert loaded.test.labels.dtype == np.int32
  assert loaded.train.ids.tolist() == [f"train_{row}" for row in range(6)]
  assert loaded.class_names == ("cat", "dog", "eel")
  assert data.load("npz", path=save(tmp_path / "b.npz")).class_names == (
    "0",
    "1",
    "2",
  )
  resized = data.load("npz", path=path, image_size=7)
  assert resized.train.images.shape == (6, 7, 7, 3)


def test_npz_of_greyscale_images_without_a_channel_axis(tmp_path):
  changes = {key: arrays()[key][..., 0] for key in ("x_train", "x_test")}
  loaded = data.load("npz", path=save(tmp_path / "grey.npz", **changes))
  np.testing.assert_array_equal(loaded.train.images[..., 0], changes["x_train"])


X, Y = arrays()["x_train"], arrays()["y_train"]


@pytest.mark.parametrize(
  "changes, words",
  [
    ({"y_test": None}, "lacks the array y_test"),
    ({"x_train": X / 255}, "x_train is float64, but images are uint8"),
    ({"x_train": X[0, 0]}, "x_train has the shape (5, 3)"),
    (
      {"x_train": X[:0], "y_train": Y[:0]},
      "x_train has the shape (0, 4, 5, 3)",
    ),
    (
      {"x_train": X.transpose(0, 3, 1, 2)},
      "x_train has the shape (6, 3, 4, 5)",
    ),
    ({"y_train": Y * 1.0}, "y_train is float64, but labels are integers"),
    ({"y_train": Y[:, None]}, "y_train has the shape (6, 1)"),
    ({"y_train": Y[:5]}, "x_train holds 6 images"),
    ({"y_train": Y - 1}, "a train label is -1, but the classes"),
    ({"y_test": np.array([0, 1, 7])}, "a test label is 7, but the classes"),
    ({"x_test": arrays()["x_test"][:, :3]}, "test images 3x5x3"),
    ({"y_train": Y + 10**9}, "a train label is 1000000002, but there are only"),
    ({"y_train": Y + 2**31 - 3}, "a train label is 2147483647, but"),
    ({"y_train": Y + 1000}, "6 train images: number the classes from 0, or"),
    ({"y_train": Y - 2**40}, "the label of train_0 is -1099511627776"),
    (
      {"y_train": Y.astype("u8") + np.uint64(2**64 - 3)},
      "is 18446744073709551613",
    ),
    (
      {"y_test": np.array([0, 1, 2**40])},
      "the label of test_2 is 1099511627776",
    ),
    (
      {"y_test": np.array([0, 1, 10**9])},
      "a test label is 1000000000, but the",
    ),
    (
      {"y_train": Y + 2**40, "class_names": np.array(["a", "b", "c"])},
      "the label of train_0 is 1099511627776: number the classes from 0",
    ),
    ({"class_names": np.array(["a", "b"])}, "a train label is 2"),
    ({"class_names": np.array(["a", "b", "a"])}, "the same name"),
    ({"class_names": np.arange(3)}, "class_names is int64"),
  ],
)
def test_npz_mistakes(tmp_path, changes, words):
  path = save(tmp_path / "set.npz", **changes)
  message = error_line("npz", path=path)
  assert path in message
  assert words in message


def test_npz_of_few_images_may_have_many_classes(tmp_path):
  few = save(tmp_path / "few.npz", y_train=Y + 997)  # up to 999
  assert len(data.load("npz", path=few).class_names) == 1000
  names = np.array([str(number) for number in range(5000)])
  named = save(tmp_path / "named.npz", y_train=Y + 4000, class_names=names)
  assert data.load("npz", path=named).train.labels.max() == 4002


class Bomb:
  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path("exploded"),)


def test_npz_files_that_are_none(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert "there is no file" in error_line("npz", path="none.npz")
  pathlib.Path("text.npz").write_text("hello")
  assert "no readable .npz" in error_line("npz", path="text.npz")
  np.save("array.npy", X)
  assert "no readable .npz" in error_line("npz", path="array.npy")
  np.savez("bomb.npz", **arrays(x_train=np.array([Bomb()], object)))
  assert "no readable .npz" in error_line("npz", path="bomb.npz")
  assert not pathlib.Path("exploded").exists()
  damaged = bytearray(pathlib.Path(save("good.npz")).read_bytes())
  damaged[len(damaged) // 4] ^= 1
  pathlib.Path("damaged.npz").write_bytes(damaged)
  assert "no readable .npz" in error_line("npz", path="damaged.npz")


def test_real_cifar10_images(shared):
  path = shared / "data" / "cifar10_small.npz"
  if not path.exists():
    pytest.skip("needs ../shared/data/cifar10_small.npz")
  cifar = data.load("npz", path=str(path))
  assert cifar.train.images.shape == (2500, 32, 32, 3)
  assert cifar.test.images.shape == (3000, 32, 32, 3)
  assert len(cifar.class_names) == 10


# ---- a folder of class folders ----------------------------------------------


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
    for image, id_ in zip(split.images, split.ids, strict=True):
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
  np.testing.assert_array_equal(loaded.test.images[0], wanted)


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


# ---- the cache --------------------------------------------------------------


def refuse(*arguments):
  raise AssertionError("decoded again")


def test_the_second_load_decodes_nothing(tmp_path, monkeypatch):
  make_folder(tmp_path / "set")
  first = data.load("folder", path=tmp_path / "set")
  with monkeypatch.context() as patch:
    patch.setattr(folder_source, "decode", refuse)
    assert_same(first, data.load("folder", path=tmp_path / "set"))
    with pytest.raises(AssertionError, match="decoded again"):
      data.load("folder", path=tmp_path / "set", image_size=4)
  changed = tmp_path / "set/train/owl/b.png"
  changed.write_bytes(png(np.zeros((6, 6, 3), np.uint8)).read())
  second = data.load("folder", path=tmp_path / "set")
  assert second.train.fingerprint != first.train.fingerprint
  assert not second.train.images[-1].any()


def test_a_damaged_cache_is_decoded_again(tmp_path, cache):
  make_folder(tmp_path / "set")
  first = data.load("folder", path=tmp_path / "set")
  (file,) = cache.glob("folder-train*")
  whole = file.read_bytes()
  assert len(list(cache.iterdir())) == 2
  damages = [b"", b"hello", whole[:-1], whole[: len(whole) // 2]]
  for at in range(0, len(whole), 37):
    damages.append(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
  for damaged in damages:
    file.write_bytes(damaged)
    assert_same(first, data.load("folder", path=tmp_path / "set"))
  file.write_bytes(b"")
  data.load("folder", path=tmp_path / "set")
  assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, cache, caplog):
  make_folder(tmp_path / "set")
  cache.write_text("a file where the folder should be")
  assert data.load("folder", path=tmp_path / "set").class_names
  assert "are not cached" in caplog.text


def test_two_at_once(tmp_path, cache, monkeypatch):
  make_folder(tmp_path / "set")
  both = threading.Barrier(2, timeout=20)
  decode = folder_source.decode

  def together(*arguments):
    both.wait()
    return decode(*arguments)

  monkeypatch.setattr(folder_source, "decode", together)
  loaded = [None, None]

  def load(which):
    loaded[which] = data.load("folder", path=tmp_path / "set")

  threads = [threading.Thread(target=load, args=[i]) for i in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert_same(*loaded)
  assert len(list(cache.iterdir())) == 2  # and no temporary file


# ---- tensorflow-datasets ----------------------------------------------------


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


@pytest.fixture
def tiny_set(tmp_path):
  return prepare(
    tmp_path / "tfds",
    "tiny_set",
    {"train": tiny(25, "train"), "test": tiny(12, "test")},
    image=IMAGE,
    label=LABEL,
    id=tfds.features.Text(),
  )


def test_tfds_rows_are_sorted_by_the_number_in_the_id(tmp_path, tiny_set):
  stored = tfds.builder_from_directory(tiny_set).as_data_source("train")
  order = [example["id"].decode() for example in stored]
  loaded = data.load("tiny_set", path=tmp_path / "tfds")
  assert loaded.train.ids.tolist() == [f"train_{row}" for row in range(25)]
  assert order != loaded.train.ids.tolist()  # the files are shuffled
  assert loaded.test.ids.tolist() == [f"test_{row}" for row in range(12)]
  np.testing.assert_array_equal(loaded.train.labels, np.arange(25) % 3)
  assert loaded.train.images.shape == (25, 8, 8, 3)
  for row, image in enumerate(loaded.train.images):
    assert (image == row).all()
  assert loaded.class_names == ("cat", "dog", "eel")
  assert loaded.name == "tiny_set"


@pytest.mark.parametrize("with_ids", [True, False])
def test_tfds_images_that_stay_in_their_files(tmp_path, with_ids):
  ids = {"id": tfds.features.Text()} if with_ids else {}
  splits = {"train": tiny(25, "train"), "test": tiny(12, "test")}
  if not with_ids:
    for row in itertools.chain(*splits.values()):
      del row["id"]
  prepare(tmp_path / "tfds", "tiny", splits, image=IMAGE, label=LABEL, **ids)
  whole = data.load("tiny", path=tmp_path / "tfds", image_size=4)
  for _ in range(2):  # looked through, then from the index
    lazy = data.load("tiny", path=tmp_path / "tfds", image_size=4, lazy=True)
    assert isinstance(lazy.train.images, data.Lazy)
    assert_same(whole, lazy)


def test_folder_images_that_stay_in_their_files(tmp_path):
  for split, count in (("train", 7), ("test", 3)):
    for row in range(count):
      file = tmp_path / split / ("ab"[row % 2]) / f"{row}.png"
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(png(np.full((5, 6, 3), row, np.uint8)).read())
  whole = data.load("folder", path=tmp_path, image_size=4)
  lazy = data.load("folder", path=tmp_path, image_size=4, lazy=True)
  assert isinstance(lazy.test.images, data.Lazy)
  assert_same(whole, lazy)


def test_a_set_larger_than_memory_stays_in_its_files(
  tmp_path, tiny_set, monkeypatch
):
  monkeypatch.setattr(prepared, "memory", lambda: 4 * 25 * 8 * 8 * 3 - 1)
  lazy = data.load("tiny_set", path=tmp_path / "tfds")
  assert isinstance(lazy.train.images, data.Lazy)
  monkeypatch.setattr(prepared, "memory", lambda: 4 * 25 * 8 * 8 * 3)
  whole = data.load("tiny_set", path=tmp_path / "tfds")
  assert_same(whole, lazy)


def test_tfds_is_silent_and_needs_no_tensorflow(tmp_path, tiny_set):
  script = """
import sys
from ckd_jax import data
slow = {"tensorflow_datasets", "sklearn", "jax"} & set(sys.modules)
assert not slow, slow
assert data.load("tiny_set").train.images.shape == (25, 8, 8, 3)
assert "tensorflow" not in sys.modules
"""
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", script],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[1],
    env={**os.environ, "TFDS_DATA_DIR": str(tmp_path / "tfds")},
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_tfds_is_cached(tmp_path, tiny_set, monkeypatch):
  first = data.load("tiny_set", path=tmp_path / "tfds")
  monkeypatch.setattr(prepared, "decode", refuse)
  assert_same(first, data.load("tiny_set", path=tmp_path / "tfds"))


def test_tfds_without_ids_and_with_unlabelled_test_images(tmp_path):
  """Rows are named by their position; validation is the test set."""
  examples = [
    {"image": png(np.full((6 + row, 9), row, np.uint8)), "label": row % 3}
    for row in range(9)
  ]
  folder = prepare(
    tmp_path,
    "bare",
    {
      "train": examples[:4],
      "validation": examples[4:7],
      "test": [{**example, "label": -1} for example in examples[7:]],
    },
    image=tfds.features.Image(shape=(None, None, 1)),
    label=LABEL,
  )
  assert "images differ in size" in error_line("bare", path=tmp_path)
  loaded = data.load("bare", path=tmp_path, image_size=5)
  assert loaded.train.images.shape == (4, 5, 5, 1)
  assert loaded.train.ids.tolist() == [f"train_{row}" for row in range(4)]
  assert loaded.test.ids[0] == "validation_0" and len(loaded.test.ids) == 3
  stored = tfds.builder_from_directory(folder).as_data_source("train")
  for row, example in enumerate(stored):
    assert (loaded.train.images[row] == example["image"][0, 0]).all()
    assert loaded.train.labels[row] == example["label"]


def run_command(message, monkeypatch):
  """Runs the Python of the advice with a stub; returns what it asks tfds."""
  words = shlex.split(re.search("pip install .*", message)[0])
  assert words[:4] == ["pip", "install", "ckd_jax[tfds]", "&&"]
  assert words[4:6] == ["python", "-c"]
  asked = []

  class Stub:
    def download_and_prepare(self):
      asked.append("prepared")

  def builder(name, **keywords):
    asked.append((name, keywords))
    return Stub()

  monkeypatch.setattr(tfds, "builder", builder)
  exec(words[6], {})
  return asked


def test_tfds_sets_that_are_not_prepared(tmp_path, monkeypatch):
  message = error_line("cifar10", path=tmp_path)
  assert f"cifar10 is not prepared in {tmp_path}" in message
  keywords = {"data_dir": str(tmp_path), "file_format": "array_record"}
  assert run_command(message, monkeypatch) == [
    ("cifar10", keywords),
    "prepared",
  ]
  assert "did you mean 'cifar100'?" in error_line("cifer100", path=tmp_path)
  assert "did you mean 'digits'?" in error_line("digit", path=tmp_path)
  for name in ("qqqqqqq", "no name", ""):
    message = error_line(name, path=tmp_path)
    assert f"unknown dataset {name!r}: choose one of digits" in message
    assert len(message) < 150


def test_tfds_prepared_as_tfrecord(tmp_path, tiny_set, monkeypatch):
  info = tiny_set / "dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  message = error_line("tiny_set", path=tmp_path / "tfds")
  assert "prepared as tfrecord, which only TensorFlow reads" in message
  assert f"delete {tiny_set}, then run" in message
  assert run_command(message, monkeypatch)[1] == "prepared"


def test_tfds_damaged_files(tmp_path, tiny_set):
  (shard,) = tiny_set.glob("*train.array_record*")
  whole = shard.read_bytes()
  flipped = bytearray(whole)
  flipped[200] ^= 255
  for damaged in (b"", bytes(flipped), whole[: len(whole) // 2]):
    shard.write_bytes(damaged)
    message = error_line("tiny_set", path=tmp_path / "tfds")
    assert "is prepared but damaged" in message
    assert f"delete {tiny_set}" in message
  shard.unlink()
  assert "but damaged" in error_line("tiny_set", path=tmp_path / "tfds")
  (tiny_set / "dataset_info.json").write_text("{")
  message = error_line("tiny_set", path=tmp_path / "tfds")
  assert "cannot be opened" in message


def test_tfds_sets_that_cannot_be_used(tmp_path):
  prepare(
    tmp_path,
    "no_label",
    {"train": [{"image": png(X[0])}]},
    image=tfds.features.Image(shape=(4, 5, 3)),
  )
  message = error_line("no_label", path=tmp_path)
  assert "not for image classification" in message and "has image" in message
  prepare(
    tmp_path,
    "no_test",
    {"train": tiny(3, "train")},
    image=IMAGE,
    label=LABEL,
    id=tfds.features.Text(),
  )
  message = error_line("no_test", path=tmp_path)
  assert "no labelled test or validation split, only train" in message


@pytest.mark.slow
def test_real_cifar100(shared, monkeypatch, capsys):
  """Somebody else's logits fit the labels only in the published order."""
  table = shared / "tables" / "cifar100_resnet20_logits.npz"
  if not (shared / "tfds" / "cifar100").exists() or not table.exists():
    pytest.skip("needs ../shared/tfds/cifar100 and ../shared/tables")
  start = time.perf_counter()
  cifar = data.load("cifar100", path=shared / "tfds")
  first = time.perf_counter() - start
  monkeypatch.setenv("TFDS_DATA_DIR", str(shared / "tfds"))
  monkeypatch.setattr(prepared, "decode", refuse)
  start = time.perf_counter()
  again = data.load("cifar100")
  second = time.perf_counter() - start
  assert_same(cifar, again)
  assert cifar.train.images.shape == (50000, 32, 32, 3)
  assert cifar.test.images.shape == (10000, 32, 32, 3)
  assert cifar.class_names[0] == "apple" and len(cifar.class_names) == 100
  assert cifar.train.fingerprint == (
    "9ef86b5ba9e2a97beeee6a9b6715cf9b012adb4fcec5248a20eca31c4b86a66d"
  )
  right = {}
  with np.load(table, allow_pickle=False) as logits:
    for name, split in (("train", cifar.train), ("test", cifar.test)):
      numbers = [int(id_.removeprefix(f"{name}_")) for id_ in split.ids]
      assert numbers == list(range(len(split.ids)))
      answer = logits[f"{name}_logits"].argmax(1)
      right[name] = int((answer == split.labels).sum())
  with capsys.disabled():
    print(
      f"\nCIFAR-100: the teacher is right on {right['train'] / 500:.3f} % of "
      f"train and {right['test'] / 100:.3f} % of test labels; first load "
      f"{first:.1f} s, second {second:.2f} s"
    )
  # Published as 81.07 and 70.77 %. Rounded to float16, 43 and 10 rows have two
  # equal largest logits; argmax takes the first, which gains one test image.
  assert right == {"train": 40533, "test": 7078}
  assert second < first / 3
