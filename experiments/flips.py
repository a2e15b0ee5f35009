"""What does damage do to the files that a run reads again?

  python experiments/flips.py [COUNT] [KIND ...]

Makes each kind of folder once: a run, finished or stopped in the middle; a
table, finished or being filled; an export; both as teachers. Then damages one
file at a time in a copy, and reads it as the commands do: COUNT bits (default
500) are flipped at random places of files in turn, and each file is cut at
random, emptied and deleted; strangers are put into each folder. Counts what
came of it: refused in one line, an older state (a checkpoint set aside, or
questions asked again), no effect, something else than before (wrong), and
another error than a UserError (raw). Exits with 1 if anything was wrong or raw.
"""

import contextlib
import io
import logging
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import config, export, report, student, table, teacher
from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs
from ckd_jax.run import logger, run
from ckd_jax.table import Answers

HERE = "flips" if __name__ == "__main__" else __name__
DIGITS = pathlib.Path(__file__).parents[1] / "ckd_jax/configs/digits.py"
RUN = (
  f"method=kd,teacher.source=callable,teacher.path={HERE}:oracle,budget=40,"
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
  times = ("second", "processor", "digest", "sha256", "repeated", "path")
  times = (*times, "paid")  # of a calls.json that was deleted: unknown
  return {
    key: value
    for key, value in found.items()
    if key == "params_sha256" or not any(x in key for x in times)
  }


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
    run(a_config(f"{HERE}:linear"), folder)


class Kind(NamedTuple):
  """A folder, and everybody who reads it.

  Attributes:
    make: fills a folder.
    reads: by name; each is called with the folder, in order.
  """

  make: Callable[[pathlib.Path], Any]
  reads: dict[str, Read]


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


class _Split(NamedTuple):
  images: np.ndarray
  labels: np.ndarray
  ids: np.ndarray
  fingerprint: str


def _filled(folder: pathlib.Path, rows: int = 16, answer=oracle) -> Any:
  """The answers about the first images, asked for as far as they lack."""
  split = _Split(
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
    {"the same command": lambda folder: the_run(folder, f"{HERE}:linear")},
  ),
  "table": Kind(_a_table, {"read": _held}),
  "table being filled": Kind(_half_filled, {"the same command": _filled}),
  "export": Kind(
    _an_export, {"load_student": _predictions, "teacher": _answers}
  ),
}


class Damage(NamedTuple):
  """One change of one copy.

  Attributes:
    what: "flip" or another word.
    path: in the folder.
    do: (the damaged path) -> None.
  """

  what: str
  path: pathlib.PurePath
  do: Callable[[pathlib.Path], Any]


def damages(whole: pathlib.Path, flips: int, draw) -> Iterator[Damage]:
  """Every flip, and every other damage, of the files of a folder."""
  found = sorted(whole.rglob("*"))
  files = [path for path in found if path.is_file() and path.stat().st_size]
  for turn in range(flips):
    path = files[turn % len(files)]
    bit = int(draw.integers(8 * path.stat().st_size))
    yield Damage("flip", path.relative_to(whole), lambda x, b=bit: _flip(x, b))
  for path in files:
    name = path.relative_to(whole)
    length = int(draw.integers(path.stat().st_size))
    yield Damage("cut", name, lambda x, n=length: x.write_bytes(_data(x)[:n]))
    yield Damage("emptied", name, lambda x: x.write_bytes(b""))
    yield Damage("deleted", name, lambda x: x.unlink())
  for folder in [whole, *(path for path in found if path.is_dir())]:
    name = folder.relative_to(whole)
    for stray in (".DS_Store", "00000099", "part-00099.npz", "stray.json"):
      yield Damage("stray", name / stray, lambda x: x.write_bytes(b"\x00stray"))
    yield Damage("stray", name / "00000098", lambda x: x.mkdir())


def _data(path: pathlib.Path) -> bytes:
  return path.read_bytes()


def _flip(path: pathlib.Path, bit: int) -> None:
  data = bytearray(path.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)


class Told(logging.Handler):
  """Keeps what is logged."""

  def __init__(self):
    super().__init__(logging.WARNING)
    self.lines: list[str] = []

  def emit(self, record):
    self.lines.append(record.getMessage())


def outcome(kind: Kind, folder: pathlib.Path, wanted: dict, damage: Damage):
  """(what came of a damaged copy, what to print of it)."""
  results, told = [], Told()
  logging.getLogger("ckd_jax").addHandler(told)
  logging.getLogger("ckd_jax").propagate = False
  asked.clear()
  for name, read in kind.reads.items():
    try:
      found = quietly(read, folder)
      results.append("same" if found == wanted[name] else f"wrong {name}")
    except UserError:
      results.append("one line")
    except Exception as error:
      results.append(f"raw {name}: {type(error).__name__}: {error}"[:200])
  logging.getLogger("ckd_jax").removeHandler(told)
  bad = [one for one in results if one.startswith(("wrong", "raw"))]
  bad += [f"raw {line}" for line in told.lines if "\n" in line]
  if bad:
    return bad[0].split()[0], "; ".join(bad)
  if damage.what == "flip" and asked and "table" in damage.path.parts:
    return "wrong", f"{sum(asked)} answers were paid again"
  if "one line" in results:
    return "one line", ""
  older = [*folder.rglob("*.corrupt")] or sum(asked) > wanted["asked"]
  return ("older" if older else "same"), ""


def quietly(read: Read, folder: pathlib.Path) -> Any:
  with (
    contextlib.redirect_stdout(io.StringIO()),
    contextlib.redirect_stderr(io.StringIO()),
  ):
    return read(folder)


OUTCOMES = ("one line", "older", "same", "wrong", "raw")


def count(kind: Kind, flips: int, others: bool = True):
  """{(flip or other, outcome): number}, and a line for each failure."""
  draw, counts, lines = np.random.default_rng(0), {}, []
  with tempfile.TemporaryDirectory() as place:
    whole, copy = pathlib.Path(place) / "whole", pathlib.Path(place) / "copy"
    whole.mkdir()
    quietly(kind.make, whole)
    shutil.copytree(whole, copy)
    wanted: dict[str, Any] = {}
    asked.clear()
    for name, read in kind.reads.items():
      wanted[name] = quietly(read, copy)
    wanted["asked"] = sum(asked)
    for damage in damages(whole, flips, draw):
      if damage.what != "flip" and not others:
        break
      shutil.rmtree(copy)
      shutil.copytree(whole, copy)
      damage.do(copy / damage.path)
      found, line = outcome(kind, copy, wanted, damage)
      key = "flip" if damage.what == "flip" else "other", found
      counts[key] = counts.get(key, 0) + 1
      if line:
        lines.append(f"{damage.what} of {damage.path}: {line}")
        print(lines[-1], file=sys.stderr, flush=True)
  return counts, lines


def main(argv: list[str]) -> int:
  """Prints a table; returns the exit status."""
  flips = int(argv[0]) if argv else 500
  print(f"| folder | damage | cases | {' | '.join(OUTCOMES)} |")
  print(f"|---|---|---|{'---|' * len(OUTCOMES)}")
  failures = 0
  for name in argv[1:] or KINDS:
    counts, lines = count(KINDS[name], flips)
    failures += len(lines)
    for what in ("flip", "other"):
      cells = [counts.get((what, outcome), 0) for outcome in OUTCOMES]
      row = " | ".join(map(str, [name, what, sum(cells), *cells]))
      print(f"| {row} |", flush=True)
  return int(failures > 0)


if __name__ == "__main__":
  sys.modules[HERE] = sys.modules[__name__]  # where the config finds `oracle`
  with tempfile.TemporaryDirectory() as compiled:
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    status = main(sys.argv[1:])
  sys.exit(status)
