"""Distillation from Python: the command, with objects in place of names."""

import contextlib
import math
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from etils import epath

from ckd_jax import config as configuration
from ckd_jax import models
from ckd_jax.data import Dataset, TextOptions, read_arrays, read_texts
from ckd_jax.errors import UserError
from ckd_jax.methods import Model
from ckd_jax.run import Given, run
from ckd_jax.student import Student, load_student
from ckd_jax.system import compile_cache, console, devices, files

Progress = Callable[[int, Mapping[str, Any]], None]


class Result(NamedTuple):
  """A finished run.

  Attributes:
    path: its folder, with the same files as after the command.
    summary: the contents of summary.json.
    student: the best student: uint8 images, or texts, to float32 logits.
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
    distill(data=(texts, labels), answers=function, budget=500, method="kd")

  Every core and every device is used, as from the command, if ckd_jax was
  imported before JAX started. The same call with the same `workdir` resumes an
  unfinished run.

  Args:
    config: from `get_config`, or a name for it; None, with `data`, has the
      defaults of configs/digits.py, or for texts of configs/sst2.py.
    workdir: folder for everything that the run writes; None is a new temporary
      one, which remains.
    student: a name of `models.names()`, a `Model`, or a Linen, NNX, Equinox or
      Haiku network; None is the student of the config.
    data: (images, labels), or ((images, labels), (test images, test labels)),
      or a `Dataset`; images are uint8[n, h, w, c] and labels int[n]. In place
      of images texts, a list of str, whose labels may be str.
    answers: the teacher's: float[n, classes], logits of the n training inputs
      in their order; a `Table`; or a function of uint8[n, h, w, c], or of a
      list of n str, that returns float[n, classes], which needs `budget=`: it
      is asked about the training part of so many inputs, each of them once.
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
  found = None if data is None else _data(data)
  is_ours = config is None  # the defaults for arrays
  settled: Any = _config(config, found, method)
  with settled.unlocked():
    model = _name_student(settled, student)
    _name_teacher(settled, answers)
  if is_ours and settled.teacher.source == "callable" and "budget" not in keys:
    kind = "texts" if "text" in settled.dataset else "images"
    raise UserError(
      f"give budget=: without it all {settled.budget} {kind} are asked about"
    )
  for key, value in keys.items():
    configuration.set_value(settled, key, value)
  if "batch_size" not in keys and is_ours:
    # The default can exceed a small number of images.
    learned = math.ceil((1 - settled.val_fraction) * settled.budget)
    batch_size = min(settled.batch_size, max(learned, 1))
    configuration.set_value(settled, "batch_size", batch_size)
  configuration.check(settled)
  given = Given(_dataset(found, settled), model, answers)
  with contextlib.ExitStack() as stack:
    if workdir is None:
      workdir = tempfile.mkdtemp(prefix="ckd_jax-")
      made = [epath.Path(workdir)]
      stack.callback(files.remove_empty, made[0], made)
    path = pathlib.Path(workdir)
    stack.enter_context(console.silenced(progress))
    stack.enter_context(compile_cache.persistent_cache())
    summary = run(settled.lock(), path, given=given, flag_name="workdir")
  network = settled.student if model is None else student
  return Result(path, summary, load_student(path, network=network))


class _Texts(NamedTuple):
  """(texts, labels) of two splits; a config says what tokens they become."""

  train: tuple[Any, Any]
  test: tuple[Any, Any] | None


def _data(data: Any) -> Dataset | _Texts:
  """A data set, or texts that will be one."""
  if isinstance(data, Dataset):
    return data
  if not isinstance(data, tuple | list) or len(data) != 2:
    raise UserError(
      "data must be (images, labels) or ((images, labels), (test images, test "
      f"labels)), not a {type(data).__name__}; or texts in place of images"
    )
  first = data[0]
  pairs = isinstance(first, tuple | list) and len(first) == 2
  pairs = pairs and not _are_texts(first)
  train: Any
  train, test = data if pairs else (data, None)
  if _are_texts(train[0]):
    return _Texts(train, test)
  return Dataset("arrays", *read_arrays(train, test))


def _are_texts(given: Any) -> bool:
  some = isinstance(given, tuple | list | np.ndarray) and np.size(given[:1])
  return bool(some) and isinstance(given[0], str)


def _dataset(found: Dataset | _Texts | None, config: Any) -> Dataset | None:
  """The data set, texts as the config has them."""
  if not isinstance(found, _Texts):
    return found
  if "text" not in config.dataset:
    raise UserError(
      "data are texts, and the config is of images: begin with"
      " get_config('sst2')"
    )
  options = TextOptions(**config.dataset.text)
  dataset = Dataset("arrays", *read_texts(*found, options))
  for line in dataset.notes:
    console.note(line)
  return dataset


def _config(
  config: Any, found: Dataset | _Texts | None, method: str | None
) -> Any:
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
  if found is None:
    raise UserError("there is nothing to learn from: give a config or data=")
  texts = isinstance(found, _Texts) or found.shown().kind == "texts"
  own: Any = configuration.get_config("sst2" if texts else "digits", **options)
  with own.unlocked():
    if isinstance(found, _Texts):
      own.dataset.name, labels = "arrays", found.train[1]
    else:
      own.dataset.name, labels = found.name, found.train.labels
      if not texts:
        _normalise(own, found)
    own.budget = len(labels)
    own.teacher.source = "none"
    own.teacher.pruned = 0.0
  return own


def _normalise(config: Any, dataset: Dataset) -> None:
  """Sets mean and deviation to those of the images."""
  pixels = dataset.train.inputs[:].reshape(-1, dataset.train.inputs.shape[-1])
  mean, std = pixels.mean(0) / 255, pixels.std(0) / 255
  config.dataset.mean = tuple(float(x) for x in mean)
  config.dataset.std = tuple(max(float(x), 1e-3) for x in std)


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
