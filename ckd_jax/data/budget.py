"""Chooses the images to ask about, and those to hold out.

A seed puts all images of the training set into one order. A budget is a prefix
of that order, so that a larger budget pays only for the images that it adds,
and methods, training seeds and budgets are compared on the same images.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ckd_jax.errors import UserError


class Selection(NamedTuple):
  """Rows of the training set, in the order of the seed's permutation.

  Attributes:
    train: int64[train], which the teacher may be asked about.
    validation: int64[validation], of which only labels are used.
  """

  train: np.ndarray
  validation: np.ndarray


def select(
  num_examples: int,
  *,
  budget: int,
  val_fraction: float,
  seed: int,
  kind: str = "images",
) -> Selection:
  """Chooses the labelled images that a run may see.

  Position i of the order is held out where floor(i * val_fraction) steps up.
  That depends on i alone: both parts of a smaller budget are prefixes of those
  of a larger one, and train has exactly ceil((1 - val_fraction) * budget) rows,
  which is at least one.

  Args:
    num_examples: number of images in the training set.
    budget: number of labelled images that the run may see, validation included.
    val_fraction: share of them that is held out, in [0, 1).
    seed: of the order of images, independent of the training's seed.
    kind: of the rows, "images" or "texts", for messages.

  Returns:
    A `Selection`; its validation part is empty where budget * val_fraction < 1.

  Raises:
    UserError: a number is out of range.
  """
  if not 1 <= budget <= num_examples:
    raise UserError(
      f"budget is {budget}, but the training set has {num_examples} {kind}: "
      f"choose a budget from 1 to {num_examples}"
    )
  if not 0 <= val_fraction < 1:
    raise UserError(
      f"val_fraction is {val_fraction}: choose a number from 0 (hold out "
      "nothing) up to, but not including, 1"
    )
  if seed < 0:
    raise UserError(f"budget_seed is {seed}: choose 0 or a positive number")
  # The decimal that the user wrote: 0.29 * 100 is 28.999... in floating point.
  up, down = Fraction(str(val_fraction)).as_integer_ratio()
  held_out = np.array(
    [(i + 1) * up // down > i * up // down for i in range(budget)]
  )
  order = np.random.default_rng(seed).permutation(num_examples)[:budget]
  return Selection(train=order[~held_out], validation=order[held_out])
