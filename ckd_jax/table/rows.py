"""Rows of equal length, from columns that hold a list in each cell."""

import numpy as np

from ckd_jax.errors import UserError


def rectangle(flat: np.ndarray, lengths: np.ndarray, key: str) -> np.ndarray:
  """Rows one after the other as an array of two axes.

  Args:
    flat: the numbers of all rows.
    lengths: int[rows], numbers in each.
    key: name of the column, for the message.

  Returns:
    [rows, numbers].

  Raises:
    UserError: the rows differ in length.
  """
  if len(set(lengths)) > 1:
    raise UserError(
      f"rows of {key!r} have from {lengths.min()} to {lengths.max()} numbers"
    )
  return flat.reshape(len(lengths), -1)
