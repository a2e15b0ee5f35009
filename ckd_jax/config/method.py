"""Values of a config that depend on its method."""

import ml_collections

from ckd_jax import methods
from ckd_jax.errors import UserError


def hyper(method: str) -> ml_collections.ConfigDict:
  """The hyper-parameters of a method, at their published defaults.

  Args:
    method: a name of `methods.names()`.

  Raises:
    UserError: there is no such method.
  """
  try:
    return ml_collections.ConfigDict(methods.defaults(method))
  except ValueError as error:
    raise UserError(str(error)) from error


def live(method: str) -> bool:
  """Whether the method's teacher has to answer inside the step."""
  return methods.make(method).live


def student_view(method: str) -> str:
  """The default: `table` for methods on maps, as a cached map fits one view."""
  maps = {"maps", "preactivations"} & methods.make(method).needs
  return "table" if maps else "fresh"


def pruned(method: str) -> float:
  """R2KD's share of weights to leave out, for methods with a second teacher."""
  return 0.1 if methods.make(method).max_teachers > 1 else 0.0
