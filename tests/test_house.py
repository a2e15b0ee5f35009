"""The house keeps its order: floors, faces, sizes."""

import ast
import collections
import importlib
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "ckd_jax"
# From the ground up: what stands on a floor imports from lower floors, and from
# its own room. Names are rooms, or files of the top folder.
FLOORS = (
  ("errors", "numerics", "augment", "sampling"),
  ("methods", "system"),
  ("offset", "models", "data"),
  ("losses",),
  ("step", "student", "torch_weights"),
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
# `ckd_jax.losses` shows every loss of the room in one list; configs may be
# imported by whoever finds or tests them; offset is public through losses.
SHOWN_WHOLE = {"losses": {"methods"}}
# A config file is written for its users, who import `ckd_jax.config`; that room
# knows of the files only where they lie.
APART = {("configs", "config"), ("config", "configs")}
BLOCKS = (ast.For, ast.If, ast.Try, ast.While, ast.With)


def place(path) -> str:
  """The room of a file, or the file itself in the top folder."""
  parts = path.relative_to(PACKAGE).parts
  return parts[0] if len(parts) > 1 else path.stem


def imports(path):
  """(names after `ckd_jax`, imported name) of every import, nested ones too."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      first, *rest = node.module.split(".")
      if first == "ckd_jax":
        for alias in node.names:
          yield rest, alias.name
    elif isinstance(node, ast.Import):
      for alias in node.names:
        first, *rest = alias.name.split(".")
        if first == "ckd_jax" and rest:
          yield rest, None


def rooms_used(path):
  """The rooms, or files of the top folder, from which a file imports."""
  for rest, name in imports(path):
    yield rest[0] if rest else name


def test_every_place_has_a_floor():
  known = {name for floor in FLOORS for name in floor}
  assert {place(path) for path in FILES} == known


def test_imports_lead_down():
  floor = {name: i for i, names in enumerate(FLOORS) for name in names}
  upward = {
    f"{path.relative_to(ROOT)} imports {used}"
    for path in FILES
    for used in rooms_used(path)
    if used in floor
    and used != place(path)
    and (place(path), used) not in APART
    and place(path) != "__init__"  # hands names on, when they are asked for
    and floor[used] > floor[place(path)]
  }
  assert not upward


def test_no_circle_of_rooms():
  arrows = collections.defaultdict(set)
  for path in FILES:
    if place(path) != "__init__":
      own = {(place(path), used) for used in rooms_used(path)} - APART
      arrows[place(path)] |= {used for _, used in own} - {place(path)}

  def visit(name, above):
    assert name not in above, f"{' > '.join([*above, name])}"
    for used in arrows[name]:
      visit(used, [*above, name])

  for name in tuple(arrows):
    visit(name, [])


def module_files(path):
  """The files of the package that a file imports from, as they are named."""
  for rest, name in imports(path):
    for parts in ([*rest, name or ""], rest):
      file = PACKAGE.joinpath(*filter(None, parts)).with_suffix(".py")
      if parts and file.is_file():
        yield file
        break


def test_no_circle_of_files():
  arrows = {path: set(module_files(path)) - {path} for path in FILES}
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
  inside = []
  for path in FILES:
    for rest, name in imports(path):
      room = rest[0] if rest else None
      if room not in ROOMS or room == place(path):
        continue
      if room in SHOWN_WHOLE.get(place(path), ()) or room == "configs":
        continue
      face = importlib.import_module(f"ckd_jax.{room}").__all__
      is_main = rest == [room, "__main__"]  # the command of a room
      if not is_main and (len(rest) > 1 or name not in face):
        inside.append(f"{path.relative_to(ROOT)}: {'.'.join(rest)} {name}")
  assert not inside


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_for(room):
  module = importlib.import_module(f"ckd_jax.{room}")
  assert module.__doc__ and len(module.__doc__) > 40
  if room == "configs":
    return
  for name in module.__all__:
    assert getattr(module, name) is not None


def body_lines(node) -> int:
  """Lines of a function without its docstring."""
  lines = node.end_lineno - node.lineno + 1
  first = node.body[0]
  if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
    lines -= first.end_lineno - first.lineno + 1
  return lines


def depth(node) -> int:
  """How deep blocks are nested below a node; an elif is no deeper."""
  deepest = 0
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.FunctionDef | ast.Lambda):
      continue
    inner = depth(child)
    is_elif = (
      isinstance(node, ast.If)
      and isinstance(child, ast.If)
      and child in node.orelse
    )
    if isinstance(child, BLOCKS) and not is_elif:
      inner += 1
    deepest = max(deepest, inner)
  return deepest


def functions(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      yield node


def parameters(node) -> int:
  names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
  return len([name for name in names if name.arg not in ("self", "cls")])


def test_functions_and_files_are_small():
  """But a config, which is a list; and the keywords of a method's `make`."""
  large = []
  for path in EVERY_FILE:
    where = path.relative_to(ROOT)
    if (lines := len(path.read_text().splitlines())) > 350:
      large.append(f"{where}: {lines} lines")
    is_ours = PACKAGE in path.parents
    for node in functions(path):
      name = f"{where}: {node.name}"
      is_list = place(path) == "configs" if is_ours else False
      if not is_list and (lines := body_lines(node)) > 60:
        large.append(f"{name} has {lines} lines")
      if depth(node) > 4:
        large.append(f"{name} is nested {depth(node)} deep")
      is_make = place(path) == "methods" if is_ours else False
      hyper = is_make and node.name in ("make", "mixing")
      if is_ours and not hyper and (count := parameters(node)) > 8:
        large.append(f"{name} has {count} parameters")
  assert not large, "\n".join(large)


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
