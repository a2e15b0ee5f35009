"""Objects of a Python program, in place of names in a config."""

from typing import NamedTuple

import numpy as np

from ckd_jax.data import Dataset
from ckd_jax.methods import Model
from ckd_jax.table import Table
from ckd_jax.teacher import AnswerFunction


class Given(NamedTuple):
  """What a Python program brings itself, in place of names in a config.

  Attributes:
    dataset: images and labels in memory.
    model: architecture of the student.
    answers: the teacher's: float[n, classes] about the training images in
      their order, a Table, or a function that is asked within the budget.
  """

  dataset: Dataset | None = None
  model: Model | None = None
  answers: np.ndarray | Table | AnswerFunction | None = None


NOTHING = Given()  # everything is named in the config
