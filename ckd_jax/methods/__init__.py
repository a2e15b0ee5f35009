"""Distillation methods: every file of this folder is one.

Files whose names begin with `_` hold code that methods share. A method is a
`Method`, pure functions like an optax.GradientTransformation. A network is a
`Model`, the only interface to Linen, NNX, Equinox and Haiku.
"""

import difflib
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import numpy as np

from ckd_jax.methods._anchored import Index, anchored
from ckd_jax.methods._networks import (
  Ask,
  Mixed,
  Model,
  ModelApply,
  ModelInit,
  Network,
  Outputs,
  TopK,
)
from ckd_jax.methods._seams import (
  Adapter,
  Batch,
  Compose,
  Consult,
  Expert,
  Finish,
  Init,
  Loss,
  Method,
  OffsetTarget,
  Prepare,
  Sample,
  Stage,
  Task,
  as_they_are,
  no_offset,
  stateless,
  unchanged,
)
from ckd_jax.methods._symmetric import symmetric

__all__ = [
  "Adapter",
  "Ask",
  "Batch",
  "Compose",
  "Consult",
  "Expert",
  "Finish",
  "Index",
  "Init",
  "Loss",
  "Method",
  "Mixed",
  "Model",
  "ModelApply",
  "ModelInit",
  "Network",
  "OffsetTarget",
  "Outputs",
  "Prepare",
  "Sample",
  "Stage",
  "Task",
  "TopK",
  "anchored",
  "as_they_are",
  "defaults",
  "get",
  "make",
  "mean_target",
  "names",
  "no_offset",
  "stateless",
  "symmetric",
  "unchanged",
  "working_with",
]


def names() -> list[str]:
  """Lists the names of all methods: the files of this folder."""
  return sorted(
    module.name
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
  )


def get(name: str) -> ModuleType:
  """Imports the module of a method.

  Raises:
    ValueError: no file has this name; the message suggests the nearest one.
  """
  if name not in names():
    close = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    hint = (
      f"did you mean {close[0]!r}?" if close else f"choose one of {names()}"
    )
    raise ValueError(f"unknown method {name!r}: {hint}")
  return importlib.import_module(f"{__name__}.{name}")


def defaults(name: str) -> dict[str, Any]:
  """Reads a method's hyper-parameters from the signature of its `make`."""
  signature = inspect.signature(get(name).make)
  return {key: value.default for key, value in signature.parameters.items()}


def working_with(
  fields: frozenset[str],
  inputs: str = "images",
  *,
  answers: str = "rows",
  top: bool = False,
) -> list[str]:
  """Lists the methods that, at their defaults, need no more than this.

  Args:
    fields: of `Outputs`, that a teacher gives.
    inputs: kind of what is trained on, "images" or "texts".
    answers: what a network gives, "rows" or "positions".
    top: whether it gives the most probable answers alone.
  """
  made = {name: make(name) for name in names()}
  return [
    name
    for name, method in made.items()
    if method.needs <= fields
    and method.inputs in ("any", inputs)
    and (method.branches == "none" or "branches" in fields)
    and method.answers in ("any", answers)
    and (not top or method.takes_top or not method.needs)
    and not method.live
  ]


def make(name: str, **hyper) -> Method:
  """Builds a method; hyper-parameters not given keep the published defaults."""
  return get(name).make(**hyper)


def mean_target(
  method: Method, labels: np.ndarray, teachers: tuple[Outputs, ...]
) -> np.ndarray | None:
  """What the student's mean logits should be, once an offset is fitted.

  Args:
    method: its `offset_target` gives the target of each row.
    labels: int32[n], classes of the training images.
    teachers: Outputs of [n, ...], the answers from the table.

  Returns:
    float32[classes]; None where the loss fixes the offset by itself.
  """
  rows: Any = labels
  absent: Any = None  # only labels and teachers are read
  batch = Batch(absent, absent, labels=rows, teachers=teachers)
  target = method.offset_target(batch)
  return None if target is None else np.asarray(target).mean(0)
