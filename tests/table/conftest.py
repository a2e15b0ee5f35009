"""A split, its answers, and how they are imported."""

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.data import Split
from tests.helpers.answered import NAMES, ROWS


@pytest.fixture
def split() -> Split:
  return Split(
    inputs=np.zeros((ROWS, 4, 4, 3), np.uint8),
    labels=np.arange(ROWS, dtype=np.int32) % 3,
    ids=np.asarray([f"train_{row}" for row in range(ROWS)]),
    fingerprint="f00d",
  )


@pytest.fixture
def values() -> np.ndarray:
  """float16 exactly, so that every format must give them back unchanged."""
  values = np.random.default_rng(0).normal(size=(ROWS, 3)) * 4
  return values.astype(np.float16).astype(np.float32)


@pytest.fixture
def importing(tmp_path, split):
  def run(file, out=None, **options):
    out = out or tmp_path / "out"
    subject = table.Subject("pets", "train", split, NAMES)
    return table.import_file(file, subject, out, **options)

  return run
