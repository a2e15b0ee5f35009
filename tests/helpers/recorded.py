"""Recorded inputs, values and gradients of the public implementations."""

import json

import numpy as np

from tests.helpers.paths import GOLDEN


def recorded(name: str) -> tuple[dict, dict[str, np.ndarray]]:
  """Reads (what the .json says, the arrays as they are) of a golden file."""
  path = GOLDEN / "losses" / name
  with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
    return json.loads(path.with_suffix(".json").read_text()), dict(file)


def near(found, expected, rtol=1e-5):
  """Both are equal up to rtol of the largest number."""
  expected = np.asarray(expected, np.float64)
  largest = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
  np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * largest)
