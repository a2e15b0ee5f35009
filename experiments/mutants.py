"""Which plausible bugs would the tests not notice?

  python experiments/mutants.py              every mutant of mutants.toml
  python experiments/mutants.py NAME ...     these alone

Each is put into a copy of the checkout in a temporary folder, never in place,
and the tests that should fail with it are run there. Prints a line for each,
then the survivors, and exits with 1 if there are any, with 2 where a mutant
does not fit the code any more or its tests fail without it.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIST = pathlib.Path(__file__).with_suffix(".toml")
SECONDS = 600  # for the tests of one mutant; one that hangs is noticed, too


class Mutant(NamedTuple):
  """A plausible bug.

  Attributes:
    name: what is wrong.
    file: of the package, from the root of the checkout.
    old: text that stands in it exactly once.
    new: what replaces it.
    tests: that should fail, as pytest names them; "-mslow" before slow ones.
    unnoticed: when the tests passed with it: "audit", "later" or never, "".
  """

  name: str
  file: str
  old: str
  new: str
  tests: list[str]
  unnoticed: str = ""


class Outcome(NamedTuple):
  """What the tests say: pytest's exit status, and the line that tells why."""

  status: int
  line: str


def read(names: list[str]) -> list[Mutant]:
  """The mutants of the list, or those of these names."""
  found = [Mutant(**entry) for entry in tomllib.loads(LIST.read_text())["bug"]]
  known = {mutant.name for mutant in found}
  if len(known) < len(found):
    sys.exit("two mutants have the same name")
  if strange := set(names) - known:
    sys.exit(f"no such mutants: {', '.join(sorted(strange))}")
  return [mutant for mutant in found if not names or mutant.name in names]


def misfits(mutants: list[Mutant], root: pathlib.Path) -> list[str]:
  """Mutants whose old text is not in the code exactly once."""
  return [
    f"{mutant.name}: its old text is {count} times in {mutant.file}"
    for mutant in mutants
    if (count := (root / mutant.file).read_text().count(mutant.old)) != 1
  ]


def copied(folder: str) -> pathlib.Path:
  """A copy of what the tests read."""
  root = pathlib.Path(folder) / "checkout"
  for name in ("ckd_jax", "configs", "docs", "tests"):
    shutil.copytree(
      ROOT / name,
      root / name,
      ignore=shutil.ignore_patterns("__pycache__"),
      symlinks=True,
    )
  for name in ("README.md", "setup.cfg", "pyproject.toml"):
    shutil.copy(ROOT / name, root / name)
  return root


def outcome(root: pathlib.Path, tests: list[str], limit=SECONDS) -> Outcome:
  """Runs tests in a copy, until the first one fails."""
  command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0"]
  try:
    done = subprocess.run(
      [*command, "-p", "no:cacheprovider", *tests],
      cwd=root,
      env=os.environ | {"PYTHONPATH": str(root), "COLUMNS": "200"},
      capture_output=True,
      text=True,
      timeout=limit,
    )
  except subprocess.TimeoutExpired:
    return Outcome(1, f"still running after {limit} s")
  failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.M)
  last = (done.stdout + done.stderr).strip().splitlines()[-1:]
  return Outcome(done.returncode, " ".join((failed or last)[:1])[:200])


def together(mutants: list[Mutant]) -> list[list[str]]:
  """All their tests, once: the slow ones, and the others."""
  kinds: dict[tuple[str, ...], set[str]] = {}
  for mutant in mutants:
    marks = tuple(test for test in mutant.tests if test.startswith("-m"))
    kinds.setdefault(marks, set()).update({*mutant.tests} - {*marks})
  return [[*marks, *sorted(names)] for marks, names in kinds.items()]


def tried(mutant: Mutant, root: pathlib.Path) -> Outcome:
  """The outcome with one bug, which is taken out again."""
  file = root / mutant.file
  whole = file.read_text()
  file.write_text(whole.replace(mutant.old, mutant.new))
  try:
    return outcome(root, mutant.tests)
  finally:
    file.write_text(whole)


def main() -> None:
  mutants = read(sys.argv[1:])
  with tempfile.TemporaryDirectory() as folder:
    root = copied(folder)
    if lines := misfits(mutants, root):
      print(*lines, sep="\n")
      sys.exit(2)
    for tests in together(mutants):
      without = outcome(root, tests, limit=10 * SECONDS)
      if without.status:
        print(f"without any mutant: {without.line}")
        sys.exit(2)
    survivors, strange = [], []
    for mutant in mutants:
      begun = time.monotonic()
      status, line = tried(mutant, root)
      seconds = time.monotonic() - begun
      word = {0: "SURVIVED", 1: "caught"}.get(status, f"status {status}")
      print(f"{word:8}  {seconds:4.0f} s  {mutant.name}: {line}", flush=True)
      survivors += [mutant.name] * (status == 0)
      strange += [mutant.name] * (status not in (0, 1))
  print(f"{len(mutants)} mutants, {len(survivors)} survived", *survivors)
  if strange:
    print("not run:", *strange)
  sys.exit(2 if strange else int(bool(survivors)))


if __name__ == "__main__":
  main()
