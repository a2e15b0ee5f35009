"""What a file of the package imports, and how large its functions are."""

import ast
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "ckd_jax"
Module = tuple[str, ...]  # its name after `ckd_jax`, in parts

_BLOCKS = (
  *(ast.For, ast.AsyncFor, ast.While, ast.If, ast.Match),
  *(ast.Try, ast.TryStar, ast.With, ast.AsyncWith),
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTERS = ("import_module", "__import__")


class Source(NamedTuple):
  """A file of the package, and its text."""

  path: pathlib.Path
  text: str


class Import(NamedTuple):
  """A use of a module of the package.

  Attributes:
    module: which; () is the package itself.
    name: what is taken from it; None is the module as a whole.
  """

  module: Module
  name: str | None


def place(path: pathlib.Path) -> str:
  """The room of a file, or the file itself in the top folder."""
  parts = path.relative_to(PACKAGE).parts
  return parts[0] if len(parts) > 1 else path.stem


def is_module(module: Module) -> bool:
  """Whether there is such a file or folder."""
  file = PACKAGE.joinpath(*module)
  return file.is_dir() or file.with_suffix(".py").is_file()


def imports(source: Source) -> set[Import]:
  """Every use of the package: nested, relative, dynamic, by an attribute."""
  nodes = list(ast.walk(ast.parse(source.text)))
  found: set[Import] = set()
  aliases: dict[str, Module] = {}  # names that stand for modules
  for node in nodes:
    if isinstance(node, ast.ImportFrom):
      module = _origin(node, source.path)
      for alias in node.names if module is not None else ():
        found.add(Import(module, alias.name))
        if is_module((*module, alias.name)):
          aliases[alias.asname or alias.name] = (*module, alias.name)
    elif isinstance(node, ast.Import):
      for alias in node.names:
        module = _within(alias.name)
        if module is not None:
          found.add(Import(module, None))
          aliases[alias.asname or "ckd_jax"] = module if alias.asname else ()
  return found | set(_called(nodes)) | set(_attributes(nodes, aliases))


def _within(name: str) -> Module | None:
  """`ckd_jax.run.loop` as ("run", "loop"); None for other packages."""
  first, *rest = name.split(".")
  return tuple(rest) if first == "ckd_jax" else None


def _origin(node: ast.ImportFrom, path: pathlib.Path) -> Module | None:
  """The module that names are imported from, also by `from ..run import`."""
  if not node.level:
    return _within(node.module or "")
  folder = path.relative_to(PACKAGE.parent).parts[: -node.level]
  return _within(".".join([*folder, *filter(None, [node.module])]))


def _chain(node: ast.AST) -> tuple[str, ...]:
  """`a.b.c` as its names; () where it begins with something else."""
  if isinstance(node, ast.Name):
    return (node.id,)
  if isinstance(node, ast.Attribute) and (before := _chain(node.value)):
    return (*before, node.attr)
  return ()


def _called(nodes: Iterable[ast.AST]) -> Iterator[Import]:
  """`import_module("ckd_jax.run")`, where the name is written out."""
  for node in nodes:
    if isinstance(node, ast.Call) and node.args:
      argument, called = node.args[0], _chain(node.func)[-1:]
      if (
        isinstance(argument, ast.Constant)
        and called
        and called[0] in (_IMPORTERS)
      ):
        module = _within(str(argument.value))
        if module is not None:
          yield Import(module, None)


def _attributes(
  nodes: Iterable[ast.AST], aliases: dict[str, Module]
) -> Iterator[Import]:
  """`run.loop.train` after `from ckd_jax import run`."""
  for node in nodes:
    names = _chain(node) if isinstance(node, ast.Attribute) else ()
    if not names or names[0] not in aliases:
      continue
    module = aliases[names[0]]
    for name in names[1:]:
      yield Import(module, name)
      module = (*module, name)
      if not is_module(module):
        break


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
  """All of them, nested ones and methods too."""
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, _FUNCTIONS):
      yield node


def body_lines(node) -> int:
  """Lines of a function without its docstring."""
  lines = node.end_lineno - node.lineno + 1
  first = node.body[0]
  if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
    lines -= first.end_lineno - first.lineno + 1
  return lines


def parameters(node) -> int:
  """How many a function has; `*args` and `**kwargs` are one each."""
  names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
  own = [name for name in names if name.arg not in ("self", "cls")]
  return len(own) + bool(node.args.vararg) + bool(node.args.kwarg)


def depth(node) -> int:
  """How deep blocks are nested below a node; an elif is no deeper."""
  deepest = 0
  for child in ast.iter_child_nodes(node):
    if isinstance(child, (*_FUNCTIONS, ast.Lambda)):
      continue
    inner = depth(child)
    is_elif = (
      isinstance(node, ast.If)
      and isinstance(child, ast.If)
      and child in node.orelse
    )
    if isinstance(child, _BLOCKS) and not is_elif:
      inner += 1
    deepest = max(deepest, inner)
  return deepest
