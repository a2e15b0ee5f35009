"""Folders that runs leave behind, and everybody who reads them."""

import contextlib
import functools
import hashlib
import importlib.util
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import (
  config,
  export,
  report,
  student,
  table,
  teacher,
  torch_weights,
)
from ckd_jax.data import Split
from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs
from ckd_jax.run import logger, run
from ckd_jax.table import Answers
from tests.helpers.torch_tensors import cnn

DIGITS = pathlib.Path(__file__).parents[1] / "ckd_jax/configs/digits.py"
RUN = (
  "method=kd,teacher.source=callable,budget=40,"
  "teacher.path=experiments.folders:oracle,"
  "batch_size=8,steps=12,eval_every=4,checkpoint_every=4,log_every=1,"
  "teacher.part_size=20"
)
Read = Callable[[pathlib.Path], Any]  # of a folder; equal is as good as new


def linear(num_classes: int) -> Model:
  """A student that compiles in no time."""

  def init(key, images):
    size = images[0].size
    weight = jax.random.normal(key, (size, num_classes)) / size
    return {"weight": weight, "bias": jnp.zeros(num_classes)}, {}

  def apply(params, state, images, *, train, key=None):
    flat = images.reshape(len(images), -1)
    return Outputs(flat @ params["weight"] + params["bias"][None]), state

  return Model(init, apply)


asked: list[int] = []  # how many images `oracle` was asked about, each time


def oracle(images):
  """A black box: uint8[n, 8, 8, 1] -> float[n, 10]."""
  asked.append(len(images))
  weight = np.random.default_rng(0).normal(size=(64, 10)) / 16
  return images.reshape(len(images), -1) @ weight


def a_config(name: str):
  arg = f"{RUN},student={name}"
  return config.from_flags([f"--config={DIGITS}:{arg}"])[0]


def the_run(folder: pathlib.Path, name: str = "cnn") -> dict[str, Any]:
  """The command, and what of its summary does not depend on time."""
  with mock.patch.object(logger, "curves"):  # half of the time
    found = run(a_config(name), folder)
  times = ("second", "processor", "path")
  kept = {
    key: value
    for key, value in found.items()
    if key != "sha256" and not any(x in key for x in times)
  }
  files = ("metrics.jsonl", "student.safetensors")
  digests = [
    hashlib.sha256((folder / name).read_bytes()).hexdigest()
    if (folder / name).exists()
    else "absent"
    for name in files
  ]
  return kept | dict(zip(files, digests, strict=True))


def stop_after(folder: pathlib.Path, last: int) -> None:
  """Runs, and stops as by a Ctrl-C after a step."""
  log = logger.Logger.log

  def stop(self, step, **metrics):
    if step > last:
      raise KeyboardInterrupt
    log(self, step, **metrics)

  with (
    mock.patch.object(logger.Logger, "log", stop),
    contextlib.suppress(KeyboardInterrupt),
  ):
    run(a_config("experiments.folders:linear"), folder)


class Kind(NamedTuple):
  """A folder, and everybody who reads it.

  Attributes:
    make: fills a folder.
    reads: by name; each is called with the folder, in order.
    has_sums: whether its files could tell a number that was changed.
  """

  make: Callable[[pathlib.Path], Any]
  reads: dict[str, Read]
  has_sums: bool = True


IMAGES = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 1), np.uint8)


def _answers(folder: pathlib.Path) -> Any:
  """What a folder answers as a teacher."""
  found = teacher.from_run(folder, batch_size=16)
  return found.name, found.ask(IMAGES).values.tolist()


def _predictions(folder: pathlib.Path) -> Any:
  found = student.load_student(folder)
  return found.classes, found.image_shape, found(IMAGES).tolist()


def _exported(folder: pathlib.Path) -> Any:
  with tempfile.TemporaryDirectory() as out:
    digest = export.run(folder, out)
    files = [path.read_bytes() for path in sorted(pathlib.Path(out).iterdir())]
    return digest, files


def _reported(folder: pathlib.Path) -> Any:
  (finished,), _ = report.find([folder])
  found = report.read(finished)
  return found["test_accuracy"], found["params_sha256"]


def _an_export(folder: pathlib.Path) -> None:
  the_run(folder / "run")
  export.run(folder / "run", folder)
  shutil.rmtree(folder / "run")


def _filled(folder: pathlib.Path, rows: int = 16, answer=oracle) -> Any:
  """The answers about the first images, asked for as far as they lack."""
  split = Split(
    IMAGES,
    np.zeros(16, np.int32),
    np.asarray([f"train_{row}" for row in range(16)]),
    "f00d",
  )
  names = tuple("abcdefghij")
  subject = table.Subject("pets", "train", split, names)
  ledger = teacher.Ledger(folder / "calls.json")
  if table.exists(folder / "table"):
    ledger.adopt(table.read_info(folder / "table"))
  bought = teacher.build(
    teacher.from_function(answer, "oracle", retries=0),
    teacher.Order(subject, range(rows)),
    folder / "table",
    budget=rows,
    part_size=6,
    ledger=ledger,
  )
  held = bought.table
  return held.ids.tolist(), held.answers.values.tolist(), bought.paid


def _half_filled(folder: pathlib.Path) -> None:
  """A table with a part, and a journal of four more answers."""
  _filled(folder, 6)
  left = [None] * 4

  def failing(images):
    left.pop()  # an IndexError at the fifth question
    return oracle(images)

  with contextlib.suppress(UserError):
    _filled(folder, answer=failing)


def _a_table(folder: pathlib.Path) -> None:
  ids = [f"train_{row}" for row in range(200)]
  values = np.random.default_rng(2).normal(size=(200, 10))
  table.Table.from_arrays(values, ids=ids).write(folder)


def _held(folder: pathlib.Path) -> Any:
  held = table.read(folder)
  return held.ids.tolist(), Answers(held.answers.values.tolist()), held.info


def _weights(folder: pathlib.Path, is_zip: bool) -> None:
  """A checkpoint of PyTorch, of the small network for digits."""
  import torch  # pyright: ignore[reportMissingImports]

  tensors = {key: torch.tensor(value).float() for key, value in cnn().items()}
  path = folder / "weights.pth"
  torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)


def _converted(folder: pathlib.Path) -> Any:
  tensors = torch_weights.load(folder / "weights.pth")
  return student.params_sha256(
    *torch_weights.convert("cnn", tensors, channels=1)
  )


def _of_torch() -> dict[str, Kind]:
  """PyTorch's files, where it is installed."""
  if importlib.util.find_spec("torch") is None:
    return {}
  reads: dict[str, Read] = {"weights": _converted}
  return {
    "weights": Kind(functools.partial(_weights, is_zip=True), reads),
    "older weights": Kind(
      functools.partial(_weights, is_zip=False), reads, has_sums=False
    ),
  }


KINDS = {
  "finished run": Kind(
    the_run,
    {
      "teacher": _answers,
      "export": _exported,
      "load_student": _predictions,
      "report": _reported,
      "the same command": the_run,
    },
  ),
  "stopped run": Kind(
    lambda folder: stop_after(folder, 10),
    {
      "the same command": lambda folder: the_run(
        folder, "experiments.folders:linear"
      )
    },
  ),
  "table": Kind(_a_table, {"read": _held}),
  "table being filled": Kind(_half_filled, {"the same command": _filled}),
  "export": Kind(
    _an_export, {"load_student": _predictions, "teacher": _answers}
  ),
  **_of_torch(),
}
