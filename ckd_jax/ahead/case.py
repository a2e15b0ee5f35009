"""A run named in a few words, on images that need not exist: for measuring."""

from typing import Any, NamedTuple

import numpy as np

from ckd_jax import config as configuration
from ckd_jax.ahead.answers import expected
from ckd_jax.ahead.compiling import Launch, compiled, launch
from ckd_jax.ahead.figures import figures
from ckd_jax.ahead.part import part
from ckd_jax.ahead.reading import Report, read
from ckd_jax.ahead.targets import target
from ckd_jax.data import Dataset, Lazy, Split
from ckd_jax.run import Plan, make_plan

_SETS = {"cifar100": (100, 32), "imagenet": (1000, 224)}  # classes, pixels
_TEACHERS = {"wrn_16_2": "wrn_40_2"}  # of other students on CIFAR: resnet56


class Case(NamedTuple):
  """What to compile.

  Attributes:
    target: the devices.
    devices: how many of them, the first ones; 0: all.
    config: "cifar100" or "imagenet": of the package, and its set's shapes.
    student: the network; "": the config's.
    method: its name.
    hyper: hyper-parameters that are not the published ones: (name, value).
    images: through the student in a step.
    rows: images that the teacher is asked about.
    steps: in a launch; 0: as many as a run's longest has.
    dtype: what the student computes in.
    part: of a step: "" all of it; "loss": the method's own, without the
      student; "stage 1": the same of its first stage.
  """

  target: str = "v5e:1x1"
  devices: int = 0
  config: str = "cifar100"
  student: str = "resnet8"
  method: str = "ckd"
  hyper: tuple[tuple[str, Any], ...] = ()
  images: int = 128
  rows: int = 4096
  steps: int = 1
  dtype: str = "bfloat16"
  part: str = ""


def compile_case(case: Case) -> tuple[dict[str, Any], Report]:
  """The figures of a case, and what they were read from."""
  place = target(case.target)
  made = _launch(case, place)
  built = compiled(made.function, made.given, place)
  report = read(built.text, made.tables)
  about = {**case._asdict(), "hyper": dict(case.hyper)}
  return {**about, **figures(report, made, built, place)}, report


def _launch(case: Case, place) -> Launch:
  # How many images a row of the index means is the method's affair.
  few = _made(case, place._replace(devices=place.devices[:1]), 8)
  return _made(case, place, case.images * 8 // few.images)


def _made(case: Case, place, batch_size: int) -> Launch:
  plan = plan_of(case, batch_size)
  outputs, live = expected(plan)
  stage = case.part.partition("stage ")[2]
  made = launch(
    plan,
    place,
    outputs,
    live=live,
    times=case.steps,
    count=min(case.devices, len(place.devices)),
    finished=int(stage) - 1 if stage else None,
  )
  return part(plan, made, case.part) if case.part else made


def plan_of(case: Case, batch_size: int) -> Plan:
  """The plan of a run, on images of which there are only shapes."""
  classes, pixels = _SETS[case.config]
  keys: dict[str, Any] = {
    "schedule": "constant",
    "budget": case.rows,
    "val_fraction": 0.0,
    "batch_size": batch_size,
    "dtype": case.dtype,
  }
  if case.student:
    keys["student"] = case.student
    keys["teacher.name"] = _TEACHERS.get(case.student, "resnet56")
  if case.config == "imagenet":
    keys["teacher.path"] = "not read: its network has a name"
  keys |= {f"hyper.{key}": value for key, value in case.hyper}
  config = configuration.get_config(case.config, method=case.method, **keys)
  return make_plan(config, shapes_only(case.rows, classes, pixels))


def shapes_only(rows: int, classes: int, pixels: int) -> Dataset:
  """A data set whose images cannot be read."""

  def read(row):
    raise ValueError(f"image {row} has no pixels")

  def split(count):
    images = Lazy(read, (count, pixels, pixels, 3))
    labels = np.arange(count, dtype=np.int32) % classes
    return Split(images, labels, np.arange(count).astype(str), "")

  names = tuple(map(str, range(classes)))
  return Dataset("shapes", split(rows), split(1), names)
