"""Flat tables give the rows of the arrays that they were made of."""

import jax
import numpy as np
import pytest

from ckd_jax.methods import Outputs
from ckd_jax.step import Examples, Rows, gather, pad, take_rows
from tests.helpers.arrays import draw


@pytest.mark.parametrize("shape", [(9, 4), (9, 2, 3), (9, 2, 3, 5)])
def test_rows_are_those_of_the_array(shape):
  array = draw(*shape)
  rows = Rows.of(array)
  assert rows.shape == shape and len(rows) == 9
  assert rows.flat.shape == (9, 128)  # whole rows of a TPU's lanes
  index = np.array([[3, 0], [8, 8]])
  taken = jax.jit(take_rows)(rows, index)
  np.testing.assert_array_equal(taken, array[index])


def test_wide_rows_are_those_of_the_array():
  array = np.arange(3 * 160 * 150 * 3, dtype=np.int32).reshape(3, 160, 150, 3)
  index = np.array([[2, 0]])
  taken = jax.jit(take_rows)(Rows.of(array), index)
  np.testing.assert_array_equal(taken, array[index])


def test_a_padded_table_is_gathered_as_it_was():
  images = np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3)
  outputs = Outputs(draw(7, 5), draw(7, 4), (draw(7, 2, 2, 6),))
  padded = pad(Examples(images, np.arange(7), (outputs,)), 16)
  # No table has more than two axes: a TPU would copy it at every launch.
  assert {np.ndim(leaf) for leaf in jax.tree.leaves(padded)} <= {0, 1, 2}
  index = np.array([[6], [2]])
  batch = jax.jit(gather)(padded, index)
  np.testing.assert_array_equal(batch.inputs, images[index])
  for found, whole in zip(
    jax.tree.leaves(batch.teachers), jax.tree.leaves(outputs), strict=True
  ):
    np.testing.assert_array_equal(found, whole[index])


def test_students_side_by_side_have_tables_of_their_own():
  first, second = draw(6, 2, 3), draw(6, 2, 3, seed=1)
  both = jax.tree.map(
    lambda *flat: np.stack(flat), Rows.of(first), Rows.of(second)
  )
  index = np.array([[1, 2], [5, 0]])
  taken = jax.vmap(take_rows)(both, index)
  np.testing.assert_array_equal(taken[0], first[index[0]])
  np.testing.assert_array_equal(taken[1], second[index[1]])
