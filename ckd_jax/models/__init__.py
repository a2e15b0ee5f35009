"""Networks: a zoo by name, and adapters for the user's own.

Every file beside this one that has NAMES is a family of the zoo; `linen`,
`nnx`, `equinox` and `haiku` turn a network of that library into a `Model`.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ckd_jax.errors import UserError, nearest
from ckd_jax.methods import Model
from ckd_jax.models import cost, equinox, haiku, linen
from ckd_jax.models import nnx as nnx_models
from ckd_jax.models.cohort import cohort, member
from ckd_jax.models.gpt2 import gpt2
from ckd_jax.models.plain import plain
from ckd_jax.models.tower import tower
from ckd_jax.system import imports

__all__ = [
  "as_model",
  "cohort",
  "cost",
  "get",
  "gpt2",
  "linen",
  "load",
  "member",
  "names",
  "tower",
]


@functools.cache
def _builders() -> dict[str, Callable[..., nn.Module]]:
  """Name -> function of num_classes that makes a Linen module."""
  builders = {}
  for found in pkgutil.iter_modules(__path__):
    family = importlib.import_module(f"{__name__}.{found.name}")
    builders |= getattr(family, "NAMES", {})
  return builders


def names() -> list[str]:
  """Lists the names that `get` knows."""
  return sorted(_builders())


def get(
  name: str,
  num_classes: int,
  *,
  dtype=jnp.float32,
  vocabulary: int | None = None,
  length: int | None = None,
) -> Model:
  """Builds a network of the zoo.

  Args:
    name: one of `names()`.
    num_classes: length of the logits; of a causal language model, the
      vocabulary.
    dtype: in which the network computes; parameters, batch statistics and
      logits are always float32.
    vocabulary: number of token ids, for a network of texts; None for images.
    length: the longest text in tokens, for a network of texts.

  Returns:
    A `Model` whose `Outputs` follow RepDistiller: `maps` are its features but
    the pooled one, which is `embedding`. Networks of texts have no maps.

  Raises:
    UserError: no network has this name, then the message suggests the nearest
      one; or it is for images and these are texts, or the other way round.
  """
  if name not in _builders():
    raise UserError(f"unknown model {name!r}: {nearest(name, names())}")
  options: dict[str, Any] = {}
  if _reads_texts(name):
    if vocabulary is None or length is None:
      raise UserError(
        f"{name} reads texts, not images: choose a network of images, say cnn"
      )
    options = {"vocabulary": vocabulary, "length": length, "dtype": dtype}
  elif vocabulary is not None:
    choices = ", ".join(filter(_reads_texts, names()))
    raise UserError(f"{name} sees images, not texts: choose one of {choices}")
  module = _builders()[name](num_classes=num_classes, **options)
  if getattr(module, "causal", False) and num_classes != vocabulary:
    raise UserError(
      f"{name} tells the next of {vocabulary} tokens, not one of {num_classes}"
      " classes: choose a transformer"
    )
  return linen.model(module, dtype=dtype, collection="state")


def _reads_texts(name: str) -> bool:
  """Whether a network of the zoo is for tokens."""
  return "vocabulary" in inspect.signature(_builders()[name]).parameters


def load(
  student: str, num_classes: int, *, dtype=jnp.float32, **options: Any
) -> Model:
  """Builds a network of the zoo, or the user's own.

  Args:
    student: one of `names()`, or `package.module:function`; the function is
      called with `num_classes`, and with those of the options that it names,
      and returns an argument of `as_model`.
    num_classes: length of the logits.
    dtype: in which a network of the zoo computes; the user's own decides
      itself.
    **options: `vocabulary` and `length` of texts, as for `get`; none of images.

  Raises:
    UserError: there is no such network, it cannot be imported, or it is not a
      network; or it is a network of the zoo for other data.
  """
  if ":" not in student:
    return get(student, num_classes, dtype=dtype, **options)
  make = imports.import_function(student, "the model")
  try:
    taken = inspect.signature(make).parameters
    named = {key: options[key] for key in options.keys() & taken.keys()}
    network = make(num_classes, **named)
  except UserError:
    raise
  except (Exception, SystemExit) as error:  # the user's code may raise any
    reason = f"{type(error).__name__}: {error}"
    raise UserError(f"cannot make the model {student!r}: {reason}") from error
  return as_model(network, what=repr(student))


def as_model(network: Any, *, what: str = "student") -> Model:
  """Any network as a `Model` over nested dicts.

  Args:
    network: a `Model`; a Linen module; an NNX module; an Equinox module, or the
      pair that `equinox.nn.make_with_state` returns; or a transformed Haiku
      function. The file of each library here documents its arguments.
    what: name of the network, for messages.

  Raises:
    UserError: `network` is none of these.
  """
  from flax import nnx

  if isinstance(network, type):
    raise UserError(
      f"{what} is the class {network.__name__}: give a network made of it,"
      f" {network.__name__}(...)"
    )
  if isinstance(network, nn.Module):
    return linen.model(network)
  if isinstance(network, nnx.Module):
    return nnx_models.model(network)
  if _is_from("haiku", network):
    return haiku.model(network)
  if _is_from("equinox", network):
    return equinox.model(network)
  if isinstance(network, tuple) and len(network) == 2:
    if all(_is_from("equinox", part) for part in network):
      return equinox.model(*network)
  if all(callable(getattr(network, f, None)) for f in ("init", "apply")):
    own: Any = network
    return plain(own)
  raise UserError(
    f"{what} is a {type(network).__name__}, which is not a network: give a"
    " ckd_jax.methods.Model with init and apply, or a Linen, NNX, Equinox or"
    " Haiku network"
  )


def _is_from(package: str, network) -> bool:
  """Whether its class, or one that it inherits from, is of a package."""
  classes = type(network).__mro__
  return any(kind.__module__.split(".")[0] == package for kind in classes)
