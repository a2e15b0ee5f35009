"""The order of the package: floors, exported names, sizes."""

import collections
import importlib
import subprocess
import sys

import pytest

import ckd_jax
from tests.helpers.paths import ROOT
from tests.helpers.sources import (
  PACKAGE,
  Source,
  body_lines,
  depth,
  functions,
  imports,
  parameters,
  place,
)

# From the ground up: what stands on a floor imports from lower floors, and from
# its own room. Names are rooms, or files of the top folder.
FLOORS = (
  ("cores", "errors"),
  ("numerics", "augment", "offset", "sampling"),
  ("methods", "system"),
  ("models", "data"),
  ("losses",),
  ("gpt2_weights", "step", "student", "torch_weights"),
  ("configs", "config", "table"),
  ("teacher",),
  ("run",),
  ("ahead",),
  ("api", "export", "report", "main"),
  ("sweep",),
  ("__main__", "__init__"),
)
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FILES = sorted(PACKAGE.rglob("*.py"))
EVERY_FILE = [
  *FILES,
  *sorted((ROOT / "tests").rglob("*.py")),
  *sorted((ROOT / "experiments").rglob("*.py")),
]
# `ckd_jax.losses` lists every loss of the room.
SHOWN_WHOLE = {"losses": {"methods"}}
# A config file is written for its users, who import `ckd_jax.config`; that room
# knows of the files only where they lie.
APART = {("configs", "config"), ("config", "configs")}
SOURCES = [Source(path, path.read_text()) for path in FILES]


def rooms_used(source: Source) -> set[str]:
  """The rooms, or files of the top folder, from which a file imports."""
  used = set()
  for module, name in imports(source):
    if module:
      used.add(module[0])
    elif name is not None:
      used.add(ckd_jax._HOMES.get(name, name))
  return used - {"__version__"}


def upward(source: Source) -> list[str]:
  """The rooms that a file may not import from: they are not below it."""
  floor = {name: i for i, names in enumerate(FLOORS) for name in names}
  here = place(source.path)
  if here == "__init__":  # hands names on, when they are asked for
    return []
  return sorted(
    used
    for used in rooms_used(source) - {here}
    if (here, used) not in APART
    and floor.get(used, len(FLOORS)) > floor[here]  # or of no floor at all
  )


def past_the_door(source: Source) -> list[str]:
  """Names of another room that its `__init__` does not export."""
  here, inside = place(source.path), []
  for module, name in imports(source):
    room = module[0] if module else None
    if room not in ROOMS or room in (here, "configs"):
      continue
    if room in SHOWN_WHOLE.get(here, ()):
      continue
    face = importlib.import_module(f"ckd_jax.{room}").__all__
    is_main = module == (room, "__main__")  # the command of a room
    of_face = len(module) == 2 and module[1] in face  # `files.write`
    if not (is_main or of_face or (len(module) == 1 and name in (*face, None))):
      inside.append(f"{'.'.join(module)} {name}")
  return inside


def test_every_place_has_a_floor():
  known = {name for floor in FLOORS for name in floor}
  assert {place(path) for path in FILES} == known


def test_imports_lead_down():
  found = {
    source.path.relative_to(ROOT).as_posix(): upward(source)
    for source in SOURCES
  }
  assert not {path: rooms for path, rooms in found.items() if rooms}


def test_no_circle_of_rooms():
  arrows = collections.defaultdict(set)
  for source in SOURCES:
    here = place(source.path)
    if here != "__init__":
      own = {(here, used) for used in rooms_used(source)} - APART
      arrows[here] |= {used for _, used in own} - {here}

  def visit(name, above):
    assert name not in above, f"{' > '.join([*above, name])}"
    for used in arrows[name]:
      visit(used, [*above, name])

  for name in tuple(arrows):
    visit(name, [])


def module_files(source: Source):
  """The files of the package that a file imports from, as they are named."""
  for module, name in imports(source):
    for parts in ([*module, name or ""], module):
      file = PACKAGE.joinpath(*filter(None, parts)).with_suffix(".py")
      if parts and file.is_file():
        yield file
        break


def test_no_circle_of_files():
  arrows = {
    source.path: set(module_files(source)) - {source.path} for source in SOURCES
  }
  done = set()

  def visit(path, above):
    names = [x.relative_to(ROOT).as_posix() for x in (*above, path)]
    assert path not in above, " > ".join(names)
    if path not in done:
      for used in arrows[path]:
        visit(used, [*above, path])
      done.add(path)

  for path in FILES:
    visit(path, [])


def test_other_rooms_import_the_names_of_a_room():
  found = {
    source.path.relative_to(ROOT).as_posix(): past_the_door(source)
    for source in SOURCES
  }
  assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
  ("file", "text", "check"),
  [
    ("table/store.py", "from ckd_jax.run import run", upward),
    ("table/store.py", "from ckd_jax import distill", upward),
    ("table/store.py", "from ..run import train", upward),
    ("table/store.py", "from .. import run", upward),
    ("table/store.py", "import ckd_jax\nckd_jax.api.distill()", upward),
    ("table/store.py", "import ckd_jax as c\nc.distill()", upward),
    ("table/store.py", "import ckd_jax.run.train", upward),
    ("table/store.py", "import ckd_jax.run.train as t", upward),
    ("table/store.py", "def f():\n  from ckd_jax import run", upward),
    (
      "table/store.py",
      "import importlib\nimportlib.import_module('ckd_jax.run')",
      upward,
    ),
    ("table/store.py", "__import__('ckd_jax.run')", upward),
    ("sweep.py", "from ckd_jax import run\nrun.loop.train", past_the_door),
    ("sweep.py", "from ckd_jax import run as r\nr.loop", past_the_door),
    ("sweep.py", "from ckd_jax.run import loop", past_the_door),
    ("sweep.py", "from ckd_jax.run.loop import train", past_the_door),
    ("sweep.py", "import ckd_jax\nckd_jax.run.loop", past_the_door),
    ("sweep.py", "import ckd_jax.run.loop", past_the_door),
    ("run/plan.py", "from ..table.store import append", past_the_door),
  ],
)
def test_a_breach_is_seen(file, text, check):
  assert check(Source(PACKAGE / file, text))
  assert not check(Source(PACKAGE / file, "import jax\njax.run.loop"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_for(room):
  module = importlib.import_module(f"ckd_jax.{room}")
  assert module.__doc__ and len(module.__doc__) > 40
  if room == "configs":
    return
  for name in module.__all__:
    assert getattr(module, name) is not None


def too_large(path, text: str) -> list[str]:
  """What is too large in a file.

  The keyword-only parameters of a method's `make` are its hyper-parameters: the
  contract reads them from the signature, and `config.hyper` has as many keys as
  the paper has numbers.
  """
  large = []
  if (lines := len(text.splitlines())) > 350:
    large.append(f"{lines} lines")
  is_method = path.parent == PACKAGE / "methods"
  for node in functions(text):
    if (lines := body_lines(node)) > 60:
      large.append(f"{node.name} has {lines} lines")
    if depth(node) > 4:
      large.append(f"{node.name} is nested {depth(node)} deep")
    count = parameters(node)
    if is_method and node.name == "make":
      count -= len(node.args.kwonlyargs)
    if count > 8:
      large.append(f"{node.name} has {count} parameters")
  return large


def test_functions_and_files_are_small():
  found = {
    path.relative_to(ROOT).as_posix(): too_large(path, path.read_text())
    for path in EVERY_FILE
  }
  assert not {path: large for path, large in found.items() if large}


@pytest.mark.parametrize(
  "text",
  [
    "def f(a, b, c, d, e, f, g, h, *args): pass",
    "def f(a, b, c, d, e, f, g, h, **kwargs): pass",
    "async def f(a, b, c, d, e, f, g, h, *, i): pass",
    "def make(a, b, c, d, e, f, g, h, i): pass",
    "def f():\n" + "  pass\n" * 61,
    "pass\n" * 351,
    *(
      f"async def f():\n  if 1:\n   if 1:\n    if 1:\n     if 1:\n      {block}"
      for block in (
        "match 1:\n       case 1: pass",
        "async for x in y: pass",
        "async with y: pass",
        "while 1: pass",
      )
    ),
  ],
)
def test_too_large_is_seen(text):
  assert too_large(PACKAGE / "methods" / "kd.py", text)


def test_importing_the_package_imports_nothing_else():
  code = (
    "import sys, time; begun = time.perf_counter(); import ckd_jax;"
    "assert not {'jax', 'numpy', 'flax'} & set(sys.modules);"
    "assert set(dir(ckd_jax)) >= set(ckd_jax.__all__);"
    "print(time.perf_counter() - begun)"
  )
  found = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
  )
  assert float(found.stdout) < 0.5
