"""Decoded images are cached, whole or not at all."""

import threading

import numpy as np
import pytest

from ckd_jax import data
from ckd_jax.data import folder as folder_source
from tests.helpers.sets import assert_same, make_folder, png, refuse


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
  assert not second.train.inputs[-1].any()


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
