"""What a config takes over from the method that it names."""

import ml_collections

from ckd_jax import methods
from ckd_jax.errors import UserError


def hyper(method: str) -> ml_collections.ConfigDict:
  """The hyper-parameters of a method at their published defaults.

  Raises:
    UserError: no method has this name.
  """
  try:
    return ml_collections.ConfigDict(methods.defaults(method))
  except ValueError as error:
    raise UserError(str(error)) from error


def student_view(method: str) -> str:
  """`table` for methods on maps: a cached map matches no other view."""
  maps = {"maps", "preactivations"} & methods.make(method).needs
  return "table" if maps else "fresh"


def pruned(method: str) -> float:
  """R2KD's share of weights to leave out, for methods with a second teacher."""
  return 0.1 if methods.make(method).max_teachers > 1 else 0.0
