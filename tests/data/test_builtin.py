"""Built-in data sets, and fingerprints."""

import hashlib

import numpy as np
from PIL import Image

from ckd_jax import data
from tests.helpers.sets import (
  assert_same,
  error_line,
)


def test_digits_are_scikit_learns():
  from sklearn import datasets

  stored = datasets.load_digits()
  digits = data.load("digits")
  assert digits.train.inputs.shape == (1438, 8, 8, 1)
  assert digits.test.inputs.shape == (359, 8, 8, 1)
  assert digits.class_names == tuple("0123456789")
  seen = []
  for split in (digits.train, digits.test):
    rows = [int(id_.removeprefix("digits_")) for id_ in split.ids]
    assert rows == sorted(rows)
    assert split.inputs.dtype == np.uint8 and split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.labels, stored.target[rows])
    levels = split.inputs[..., 0] / 255 * 16
    assert np.abs(levels - stored.images[rows]).max() <= 0.5 * 16 / 255 + 1e-9
    assert split.inputs.max() == 255
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
  assert fake.train.inputs.shape == (512, 32, 32, 3)
  assert fake.test.inputs.shape == (256, 32, 32, 3)
  assert_same(fake, data.load("fake"))
  images, labels = fake.train.inputs.astype(float), fake.train.labels
  means = np.stack([images[labels == c].mean(0) for c in range(10)])
  far = fake.test.inputs[:, None] - means
  guess = np.square(far).mean((2, 3, 4)).argmin(1)
  assert (guess == fake.test.labels).mean() > 0.99
  assert fake.train.ids[12] == "train_12" and fake.test.ids[5] == "test_5"


def test_image_size_is_pillows_bilinear():
  small, large = data.load("digits"), data.load("digits", image_size=20)
  assert large.test.inputs.shape == (359, 20, 20, 1)
  wanted = Image.fromarray(small.test.inputs[3, ..., 0]).resize(
    (20, 20), Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(large.test.inputs[3, ..., 0], wanted)
  assert_same(small, data.load("digits", image_size=8))
  assert data.load("fake", image_size=8).test.inputs.shape == (256, 8, 8, 3)


def test_a_path_is_never_ignored():
  assert "dataset.path is '/x'" in error_line("digits", path="/x")
  assert "dataset.path is ''" in error_line("fake", path="")
  assert "needs dataset.path" in error_line("npz")
  assert "needs dataset.path" in error_line("folder")
  assert "image_size is 0" in error_line("digits", image_size=0)
