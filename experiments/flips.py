"""What does damage do to the files that a run reads again?

  python experiments/flips.py [COUNT] [KIND ...]

Makes each kind of folder once: a run, finished or stopped in the middle; a
table, finished or being filled; an export; both as teachers. Then damages one
file at a time in a copy, and reads it as the commands do: COUNT bits (default
500) are flipped at random places of files in turn, and each file is cut at
random, emptied and deleted; strangers are put into each folder. Counts what
came of it: refused in one line, an older state (a checkpoint set aside, or
questions asked again), no effect, something else than before (wrong), and
anything but one line (raw). Exits with 1 if anything was wrong or raw, except a
changed number in a file of PyTorch's older format, which has no sums.
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

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import numpy as np

from ckd_jax import errors
from experiments.folders import KINDS, Kind, Read, asked


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
      found, said = as_command(read, folder)
      if said is not None:
        results.append(said if said == "one line" else f"raw {name}: {said}")
      else:
        other = differing(found, wanted[name], damage)
        results.append(f"wrong {name}: {other}" if other else "same")
    except Exception as error:
      results.append(f"raw {name}: {type(error).__name__}: {error}"[:200])
  logging.getLogger("ckd_jax").removeHandler(told)
  bad = [one for one in results if one.startswith(("wrong", "raw"))]
  bad += [f"raw {line}" for line in told.lines if "\n" in line]
  corrupt = [path.name for path in folder.rglob("*.corrupt")]
  for name in corrupt:
    if sum(name in line for line in told.lines) != 1:
      bad.append(f"wrong: {name} was not told in one line")
    if name.removesuffix(".corrupt") not in damage.path.parts:
      bad.append(f"wrong: {name} was whole")
  if bad:
    what = bad[0].split(":")[0].split()[0]
    is_known = what == "wrong" and not kind.has_sums
    return what, "" if is_known else "; ".join(bad)
  if damage.what == "flip" and asked and "table" in damage.path.parts:
    return "wrong", f"{sum(asked)} answers were paid again"
  if "one line" in results:
    return "one line", ""
  older = corrupt or sum(asked) > wanted["asked"]
  return ("older" if older else "same"), ""


def as_command(read: Read, folder: pathlib.Path) -> tuple[Any, str | None]:
  """What is read; or what is wrong with the line that refuses it."""
  found: list[Any] = []
  silent, said = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(said):
    status = errors.command(lambda argv: found.append(read(folder)), [])
  if status == 0:
    return found[0], None
  *before, last = said.getvalue().splitlines()
  if status != 2 or not last.startswith("ckd_jax: error: ") or len(last) < 40:
    return None, f"status {status}, {last!r}"
  if any(line.startswith(("ckd_jax: error", "Traceback")) for line in before):
    return None, "more than one line"
  return None, "one line"


def differing(found: Any, wanted: Any, damage: Damage) -> str:
  """What is not as it was, "" if nothing is."""
  if not isinstance(wanted, dict):
    return "" if found == wanted else "another one"
  # What was paid is unknown where calls.json is gone, and metrics.jsonl has no
  # digest: of it all other lines stay, which is looked at elsewhere.
  excused = {
    "calls.json": () if damage.what == "flip" else ("paid", "repeated"),
    "metrics.jsonl": ("metrics.jsonl",),
  }.get(damage.path.name, ())
  keys = [
    key
    for key in {**wanted, **found}
    if found.get(key) != wanted.get(key)
    and not (excused and key.startswith(excused))
  ]
  return ", ".join(f"{x} {wanted.get(x)} -> {found.get(x)}" for x in keys)


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
  with tempfile.TemporaryDirectory() as compiled:
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    status = main(sys.argv[1:])
  sys.exit(status)
