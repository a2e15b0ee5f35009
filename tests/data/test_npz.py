"""A user's own arrays: accepted and refused ones."""

import io
import pathlib
import zipfile

import numpy as np
import pytest

from ckd_jax import data
from ckd_jax.data import npz
from ckd_jax.errors import UserError
from tests.helpers.sets import error_line


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
  np.testing.assert_array_equal(loaded.train.inputs, stored["x_train"])
  np.testing.assert_array_equal(loaded.test.inputs, stored["x_test"])
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
  assert resized.train.inputs.shape == (6, 7, 7, 3)


def test_npz_of_greyscale_images_without_a_channel_axis(tmp_path):
  changes = {key: arrays()[key][..., 0] for key in ("x_train", "x_test")}
  loaded = data.load("npz", path=save(tmp_path / "grey.npz", **changes))
  np.testing.assert_array_equal(loaded.train.inputs[..., 0], changes["x_train"])


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
  assert "x_train is object" in error_line("npz", path="bomb.npz")
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
  assert cifar.train.inputs.shape == (2500, 32, 32, 3)
  assert cifar.test.inputs.shape == (3000, 32, 32, 3)
  assert len(cifar.class_names) == 10


def test_nothing_is_unpacked_before_its_header_is_read(tmp_path, monkeypatch):
  """A few megabytes that claim to be, and are, gigabytes of zeros."""
  path = tmp_path / "bomb.npz"
  unpacked = []
  load = np.lib.npyio.NpzFile.__getitem__
  monkeypatch.setattr(
    np.lib.npyio.NpzFile,
    "__getitem__",
    lambda self, key: unpacked.append(key) or load(self, key),
  )
  for change, says in (
    ({"x_train": np.zeros((1000, 32, 32, 3), np.float64)}, "is float64"),
    ({"x_test": np.zeros((50, 100, 100, 7), np.uint8)}, "has the shape"),
    ({"y_train": np.zeros(9999, np.int32)}, "has the shape"),
    ({"y_test": np.zeros(X.shape[0], "f4")}, "labels are integers"),
  ):
    np.savez_compressed(path, **arrays(**change))
    assert says in error_line("npz", path=str(path))
  monkeypatch.setattr(npz, "memory", lambda: 100)
  np.savez_compressed(path, **arrays())
  assert "and this machine has" in error_line("npz", path=str(path))
  assert not unpacked


def test_two_arrays_of_one_name_are_refused(tmp_path):
  """The one without the ending is what NumPy reads, unchecked before."""
  path = save(tmp_path / "a.npz")
  other = io.BytesIO()
  np.save(other, np.zeros((6, 4, 5, 3)))
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("x_train", other.getvalue())
  with pytest.raises(UserError, match="two arrays x_train"):
    npz.read(path, None)
