"""Distillation from Python: the command, with objects in place of names."""

import contextlib
import math
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from ckd_jax import config as configuration
from ckd_jax import models
from ckd_jax.data import Dataset, read_arrays
from ckd_jax.errors import UserError
from ckd_jax.methods import Model
from ckd_jax.run import Given, remove_empty, run
from ckd_jax.student import Student, load_student
from ckd_jax.system import compile_cache, console, devices

Progress = Callable[[int, Mapping[str, Any]], None]


class Result(NamedTuple):
  """A finished run.

  Attributes:
    path: its folder, with the same files as after the command.
    summary: the contents of summary.json.
    student: the best student: uint8 images to float32 logits.
  """

  path: pathlib.Path
  summary: dict[str, Any]
  student: Student


def distill(
  config: ml_collections.ConfigDict | str | None = None,
  workdir: str | pathlib.Path | None = None,
  *,
  student: Any = None,
  data: Any = None,
  answers: Any = None,
  method: str | None = None,
  progress: Progress | None = None,
  **keys: Any,
) -> Result:
  """Distils a student, from a config or from arrays in memory.

    distill(get_config("cifar100", method="kd"), "runs/kd")
    distill(student="cnn", data=(images, labels), answers=logits, method="ckd")

  Every core and every device is used, as from the command, if ckd_jax was
  imported before JAX started. The same call with the same `workdir` resumes an
  unfinished run.

  Args:
    config: from `get_config`, or a name for it; None, with `data`, has the
      defaults of configs/digits.py.
    workdir: folder for everything that the run writes; None is a new temporary
      one, which remains.
    student: a name of `models.names()`, a `Model`, or a Linen, NNX, Equinox or
      Haiku network; None is the student of the config.
    data: (images, labels), or ((images, labels), (test images, test labels)),
      or a `Dataset`; images are uint8[n, h, w, c] and labels int[n].
    answers: the teacher's: float[n, classes], logits of the n training images
      in their order; a `Table`; or a function uint8[n, h, w, c] ->
      float[n, classes], which needs `budget=`: it is asked about the training
      part of so many images, each of them once.
    method: a name of `methods.names()`; its hyper-parameters are keys like
      `**{"hyper.temperature": 2.0}`.
    progress: called with (step, numbers by name) after logged steps and
      evaluations. Nothing is printed; likely mistakes are a UserWarning.
    **keys: keys of the config, `steps=1000` or
      `**{"optimizer.learning_rate": 0.1}`.

  Raises:
    UserError: a mistake of the caller, in one line.
  """
  devices.use_every_core()
  dataset = None if data is None else _dataset(data)
  is_ours = config is None  # the defaults for arrays
  settled: Any = _config(config, dataset, method)
  with settled.unlocked():
    model = _name_student(settled, student)
    _name_teacher(settled, answers)
  if is_ours and settled.teacher.source == "callable" and "budget" not in keys:
    raise UserError(
      f"give budget=: without it all {settled.budget} images are asked about"
    )
  for key, value in keys.items():
    configuration.set_value(settled, key, value)
  if "batch_size" not in keys and is_ours:
    # The default can exceed a small number of images.
    learned = math.ceil((1 - settled.val_fraction) * settled.budget)
    batch_size = min(settled.batch_size, max(learned, 1))
    configuration.set_value(settled, "batch_size", batch_size)
  configuration.check(settled)
  given = Given(dataset, model, answers)
  with contextlib.ExitStack() as stack:
    if workdir is None:
      workdir = tempfile.mkdtemp(prefix="ckd_jax-")
      made = [epath.Path(workdir)]
      stack.callback(remove_empty, made[0], made)
    path = pathlib.Path(workdir)
    stack.enter_context(console.silenced(progress))
    stack.enter_context(compile_cache.persistent_cache())
    summary = run(settled.lock(), path, given=given, flag_name="workdir")
  network = settled.student if model is None else student
  return Result(path, summary, load_student(path, network=network))


def _dataset(data: Any) -> Dataset:
  if isinstance(data, Dataset):
    return data
  if not isinstance(data, tuple | list) or len(data) != 2:
    raise UserError(
      "data must be (images, labels) or ((images, labels), (test images, test "
      f"labels)), not a {type(data).__name__}"
    )
  pairs = isinstance(data[0], tuple | list) and len(data[0]) == 2
  train: Any
  train, test = data if pairs else (data, None)
  return Dataset("arrays", *read_arrays(train, test))


def _config(config: Any, dataset: Dataset | None, method: str | None) -> Any:
  """The caller's config, or the defaults for arrays."""
  options = {} if method is None else {"method": method}
  if isinstance(config, str):
    return configuration.get_config(config, **options)
  if config is not None:
    own = config.copy_and_resolve_references()
    if method not in (None, own.method):
      raise UserError(
        f"the config is of method {own.method!r}: choose another with"
        f" get_config(..., method={method!r})"
      )
    return own
  if dataset is None:
    raise UserError("there is nothing to learn from: give a config or data=")
  own: Any = configuration.get_config("digits", **options)
  pixels = dataset.train.inputs[:].reshape(-1, dataset.train.inputs.shape[-1])
  mean, std = pixels.mean(0) / 255, pixels.std(0) / 255
  with own.unlocked():
    own.dataset.name = dataset.name
    own.dataset.mean = tuple(float(x) for x in mean)
    own.dataset.std = tuple(max(float(x), 1e-3) for x in std)
    own.budget = len(dataset.train.labels)
    own.teacher.source = "none"
    own.teacher.pruned = 0.0
  return own


def _name_student(config: Any, student: Any) -> Model | None:
  """Sets the student's name; returns the network if it is an object."""
  if student is None:
    return None
  if isinstance(student, str):
    config.student = student
    return None
  network = student[0] if type(student) is tuple else student
  config.student = f"given:{type(network).__name__}"
  return models.as_model(student)


def _name_teacher(config: Any, answers: Any) -> None:
  """Sets the source of the answers if they are objects."""
  if answers is None:
    return
  if callable(answers):
    name = getattr(answers, "__qualname__", type(answers).__name__)
    config.teacher.source = "callable"
    config.teacher.path = f"{getattr(answers, '__module__', 'given')}:{name}"
  else:
    config.teacher.source = "table"
    config.teacher.path = "given"
