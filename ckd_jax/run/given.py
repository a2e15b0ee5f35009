"""Objects of a Python program, in place of names in a config."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ckd_jax.data import Dataset
from ckd_jax.methods import Model
from ckd_jax.table import Table


class Given(NamedTuple):
  """What a Python program brings itself, in place of names in a config.

  Attributes:
    dataset: images and labels in memory.
    model: the student.
    answers: of the teacher: float[n, classes] about the training images in
      their order, a Table, or a function uint8[n, h, w, c] ->
      float[n, classes] that is asked within the budget.
  """

  dataset: Dataset | None = None
  model: Model | None = None
  answers: np.ndarray | Table | Callable | None = None


NOTHING = Given()  # everything is named in the config
