"""The networks: every file beside this one that has NAMES is a family."""

import functools
import importlib
import pkgutil
from collections.abc import Callable

import jax.numpy as jnp

from ckd_jax.errors import UserError, nearest
from ckd_jax.methods import Model
from ckd_jax.models import linen


@functools.cache
def _builders() -> dict[str, Callable]:
  """Name -> function of num_classes that makes a Linen module."""
  builders = {}
  for found in pkgutil.iter_modules(__path__):
    family = importlib.import_module(f"{__name__}.{found.name}")
    builders |= getattr(family, "NAMES", {})
  return builders


def names() -> list[str]:
  """The names that `get` knows."""
  return sorted(_builders())


def get(name: str, num_classes: int, *, dtype=jnp.float32) -> Model:
  """Builds a network of the zoo.

  Args:
    name: one of `names()`.
    num_classes: length of the logits.
    dtype: what the network computes in; parameters, batch statistics and
      logits are float32 all the same.

  Returns:
    A `Model` whose `Outputs` follow RepDistiller: `maps` are its features but
    the pooled one, which is `embedding`.

  Raises:
    UserError: no network has this name; the message suggests the nearest one.
  """
  if name not in _builders():
    raise UserError(f"unknown model {name!r}: {nearest(name, names())}")
  module = _builders()[name](num_classes=num_classes)
  return linen.model(module, dtype=dtype, collection="state")


def load(student: str, num_classes: int, *, dtype=jnp.float32) -> Model:
  """Builds a network of the zoo, or the user's own.

  Args:
    student: one of `names()`, or `package.module:function`; the function is
      called with `num_classes` and returns a `Model`.
    num_classes: length of the logits.
    dtype: what a network of the zoo computes in; the user's own decides itself.

  Raises:
    UserError: there is no such network, it cannot be imported, or it is not a
      `Model`.
  """
  if ":" not in student:
    return get(student, num_classes, dtype=dtype)
  module, _, function = student.partition(":")
  try:
    model = getattr(importlib.import_module(module), function)(num_classes)
  except Exception as error:  # the user's code may raise anything
    reason = f"{type(error).__name__}: {error}"
    raise UserError(f"cannot make the model {student!r}: {reason}") from error
  if not all(callable(getattr(model, f, None)) for f in ("init", "apply")):
    raise UserError(
      f"{student!r} returned a {type(model).__name__}, not a"
      " ckd_jax.methods.Model with init and apply"
    )
  return model
