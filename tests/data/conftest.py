"""A separate cache for every test, and a small prepared set."""

import pytest
import tensorflow_datasets as tfds

from tests.helpers.sets import IMAGE, LABEL, prepare, tiny


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """Every test decodes for itself and leaves nothing in the home directory."""
  monkeypatch.setenv("CKD_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  return tmp_path / "cache"


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
