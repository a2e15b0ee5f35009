"""mixup of three: the blend, its loss by loops, its triples, hazards."""

import numpy as np

from tests.helpers.mixing import (
  check_hazards,
  check_loss,
  check_prepare,
  check_sample,
)


def test_the_loss():
  check_loss("mixup3", 3)


def test_the_blend():
  before, after = check_prepare("mixup3", 3)
  weights = np.asarray(after.weights[0], np.float64)
  assert (weights > 0).all() and len(set(weights)) == 3
  blend = np.einsum("g,bghwc->bhwc", weights, before.inputs)
  np.testing.assert_allclose(after.inputs[:, 0], blend, rtol=1e-4, atol=1e-5)


def test_the_sample():
  check_sample("mixup3", 3)


def test_hazards():
  check_hazards("mixup3", 3)
