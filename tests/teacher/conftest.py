"""Images, and a function where `from_callable` finds it."""

import numpy as np
import pytest

from ckd_jax import teacher
from ckd_jax.data import Split
from tests.helpers import asking


@pytest.fixture
def split() -> Split:
  images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), np.uint8)
  return Split(
    inputs=images,
    labels=np.zeros(40, np.int32),
    ids=np.asarray([f"train_{row}" for row in range(40)]),
    fingerprint="f00d",
  )


@pytest.fixture
def black_box(monkeypatch):
  """Puts a function where `from_callable` finds it."""

  def make(function, **options):
    monkeypatch.setattr(asking, "box", function, raising=False)
    options = {"retries": 0, "back_off": 0.001, **options}
    return teacher.from_callable("tests.helpers.asking:box", **options)

  return make
