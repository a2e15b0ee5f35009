"""The two seams, and the methods: every file beside this one is a method.

A method is a `Method`: pure functions, compare optax.GradientTransformation.
A network is a `Model`: the only thing that a method or the step knows of Linen,
NNX, Equinox or Haiku. Shapes: every array of a `Batch`, and every array of the
student's `Outputs` that a method's loss sees, begins with [batch, group].
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax


class Outputs(NamedTuple):
  """What a network says about images; a black box fills logits only."""

  logits: jax.Array  # [..., classes]
  embedding: jax.Array | None = (
    None  # [..., dim]: pooled, before the classifier
  )
  maps: tuple = ()  # of [..., h, w, c]: stage outputs, RepDistiller's order
  preactivations: tuple = ()  # the same before their ReLU


class Task(NamedTuple):
  """What a method may know about the run.

  `num_examples` may be a tracer: arithmetic only, never a shape. Where a method
  needs a shape it takes `labels.shape[0]`, the rows of the (padded) table.
  """

  num_examples: int | jax.Array
  num_classes: int
  batch_size: int  # rows of `sample`
  steps_per_epoch: int | jax.Array
  labels: jax.Array  # int32[rows]


class Batch(NamedTuple):
  """What is compared in one step; every array begins with [batch, group]."""

  index: jax.Array  # int32[batch, group], rows of the table
  images: jax.Array  # float[batch, group, h, w, c]
  labels: jax.Array  # int32[batch, group]
  weights: jax.Array | None = None  # [batch, group], how images were mixed
  teachers: tuple[Outputs, ...] = ()  # under stop_gradient


def stateless(key, task, student, teacher) -> tuple[dict, dict]:
  """`Method.init` of a method with no heads and no memory."""
  del key, task, student, teacher
  return {}, {}


def unchanged(key, batch: Batch) -> Batch:
  """`Method.prepare` of a method that does not mix images."""
  del key
  return batch


def no_offset(batch: Batch) -> None:
  """`Method.offset_target` of a loss that fixes the offset by itself."""
  del batch


def as_they_are(params, state):
  """`Stage.finish` of a stage whose heads simply go on."""
  return params, state


class Stage(NamedTuple):
  """A stretch of training before the main one (FT, AB, FSP)."""

  epochs: int  # passes over the table
  learning_rate: float  # constant
  loss: Callable  # as Method.loss
  trains_student: bool = True  # those of its parameters that the loss reaches
  finish: Callable = as_they_are
  # (params, state) -> (params, state) of the method for what comes next; what
  # moves from params to state is frozen, and no longer decayed


class Method(NamedTuple):
  """A distillation method as pure functions."""

  sample: Callable  # (key, step, task, state) -> int32[batch, group]
  init: Callable  # (key, task, student, teacher) -> (params, state)
  loss: Callable
  # (params, state, student, batch, key, step) -> (scalar, (state, metrics))
  prepare: Callable = (
    unchanged  # (key, batch) -> batch, before the forward pass
  )
  needs: frozenset[str] = frozenset({"logits"})  # fields of Outputs
  offset_target: Callable = no_offset  # (batch) -> [..., classes] or None
  passes: tuple[int, ...] = ()
  # sizes into which the group axis is cut for separate train-mode passes;
  # () is one pass over everything
  stages: tuple[Stage, ...] = ()  # before the main one, in order
  max_teachers: int = 1  # r2kd mixes in a second one where there is one


class Model(NamedTuple):
  """A network as pure functions."""

  init: Callable  # (key, images) -> (params, state)
  apply: Callable
  # (params, state, images, *, train, key=None) -> (Outputs, state)


def names() -> list[str]:
  """The names of all methods: the files of this folder."""
  return sorted(
    module.name
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
  )


def get(name: str) -> ModuleType:
  """The module of a method.

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
  """The hyper-parameters of a method, read from the signature of its `make`."""
  signature = inspect.signature(get(name).make)
  return {key: value.default for key, value in signature.parameters.items()}


def working_with(fields: frozenset[str]) -> list[str]:
  """The methods that, at their defaults, need no more than these fields."""
  return [name for name in names() if make(name).needs <= fields]


def make(name: str, **hyper) -> Method:
  """Builds a method; hyper-parameters not given keep the published defaults."""
  return get(name).make(**hyper)
