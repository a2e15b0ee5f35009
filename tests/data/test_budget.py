"""budget.select: prefixes, exact counts, and one line for every mistake."""

import fractions
import math

import numpy as np
import pytest

from ckd_jax.data import budget
from ckd_jax.errors import UserError

FRACTIONS = (0, 0.0, 0.1, 0.125, 0.2, 0.29, 1 / 3, 0.5, 0.57, 0.9, 0.999)


def rows(num_examples, size, val_fraction=0.1, seed=0):
  return budget.select(
    num_examples, budget=size, val_fraction=val_fraction, seed=seed
  )


@pytest.mark.parametrize("val_fraction", FRACTIONS)
def test_counts_are_exact_and_smaller_budgets_are_prefixes(val_fraction):
  """Brute force over every budget of a small set, in exact arithmetic."""
  kept = 1 - fractions.Fraction(str(val_fraction))
  smaller = np.array([], np.int64), np.array([], np.int64)
  for size in range(1, 121):
    train, validation = chosen = rows(120, size, val_fraction)
    assert train.dtype == validation.dtype == np.int64
    assert len(train) == math.ceil(kept * size) >= 1
    assert len(train) + len(validation) == size
    assert len({*train, *validation}) == size  # no image twice, none in both
    for part, before in zip(chosen, smaller, strict=True):
      np.testing.assert_array_equal(part[: len(before)], before)
    smaller = chosen
  assert {*train, *validation} == set(range(120))


def test_held_out_positions_by_hand():
  """0.25 holds out the fourth, eighth, ... image of the seed's order."""
  order = np.random.default_rng(7).permutation(50)
  train, validation = rows(50, 10, 0.25, seed=7)
  np.testing.assert_array_equal(validation, order[[3, 7]])
  np.testing.assert_array_equal(train, order[[0, 1, 2, 4, 5, 6, 8, 9]])


def test_a_decimal_counts_as_written():
  """100 * 0.29 is 28.999999999999996, and 29 images are held out."""
  assert math.floor(100 * 0.29) == 28
  assert len(rows(100, 100, 0.29).validation) == 29


def test_the_seed_alone_decides():
  first, again, other = (rows(5000, 2000, seed=seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first.train, again.train)
  np.testing.assert_array_equal(first.validation, again.validation)
  common = len({*first.train} & {*other.train})
  # Hypergeometric: 1800 of 5000, 1800 drawn: 648 +- 17 expected in common.
  assert 560 < common < 740
  # 1800 rows of 0..4999: the mean is 2499.5 +- 27.
  assert abs(first.train.mean() - 2499.5) < 140


@pytest.mark.parametrize(
  "arguments, words",
  [
    ((50, 0), ["budget is 0", "50 images", "from 1 to 50"]),
    ((50, -3), ["budget is -3", "50 images"]),
    ((50, 51), ["budget is 51", "50 images"]),
    ((50, 10, 1.0), ["val_fraction is 1.0"]),
    ((50, 10, -0.1), ["val_fraction is -0.1"]),
    ((50, 10, float("nan")), ["val_fraction is nan"]),
    ((50, 10, 0.1, -1), ["budget_seed is -1"]),
  ],
)
def test_mistakes_are_one_line_with_the_numbers(arguments, words):
  with pytest.raises(UserError) as error:
    rows(*arguments)
  message = str(error.value)
  assert "\n" not in message
  for word in words:
    assert word in message
