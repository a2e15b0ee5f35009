"""CutMix: the pasted box, lam as its pixels, the loss by loops, hazards."""

import jax
import numpy as np

from ckd_jax.methods._mixing import box, paste
from tests.helpers.arrays import draw
from tests.helpers.mixing import (
  check_hazards,
  check_loss,
  check_prepare,
  check_sample,
)


def test_the_loss():
  check_loss("cutmix", 2)


def test_every_pixel_comes_from_one_image_and_lam_counts_them():
  before, after = check_prepare("cutmix", 2)
  first = (after.inputs[:, 0] == before.inputs[:, 0]).all(-1)
  second = (after.inputs[:, 0] == before.inputs[:, 1]).all(-1)
  assert (first ^ second).all()
  assert (first == first[:1]).all()  # one box for the batch
  np.testing.assert_allclose(after.weights[0, 0], first[0].mean(), rtol=1e-6)
  rows, columns = np.nonzero(second[0])
  area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
  assert area == second[0].sum() > 0  # a rectangle


def test_the_ends_of_lam():
  images = draw(2, 2, 8, 6, 3)
  whole, share = paste(jax.random.key(0), images, 1.0)
  assert share == 1
  np.testing.assert_array_equal(whole, images[:, :1])
  # A box of full size around any pixel covers a quarter or more.
  mixed, share = paste(jax.random.key(0), images, 0.0)
  assert mixed.shape == (2, 1, 8, 6, 3) and 0 <= share <= 0.75


def test_the_box_is_cut_off_at_the_border_and_centred_anywhere():
  boxes = np.asarray(
    jax.vmap(lambda key: box(key, (9, 7), (4, 5)))(
      jax.random.split(jax.random.key(0), 400)
    )
  )
  assert boxes.shape == (400, 9, 7)
  heights = boxes.any(2).sum(1)
  widths = boxes.any(1).sum(1)
  assert heights.max() == 4 and heights.min() == 2  # half of it at the border
  assert widths.max() == 4 and widths.min() == 2  # an odd side loses a pixel
  assert boxes.any(0).all()


def test_the_sample():
  check_sample("cutmix", 2)


def test_hazards():
  check_hazards("cutmix", 2)
