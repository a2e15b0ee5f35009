"""What --help of every command ends with, and how it refuses flags."""

import argparse
import pathlib
import re
import textwrap
from collections.abc import Iterable
from typing import NoReturn

from ckd_jax import configs, methods, models
from ckd_jax.config.files import load_file, packaged
from ckd_jax.config.rules import SOURCES
from ckd_jax.config.values import flatten
from ckd_jax.data import BUILTIN
from ckd_jax.errors import UserError, nearest

_OWN = "package.module:function"


def epilog(**more: Iterable[str]) -> str:
  """The names that a config may use.

  Args:
    **more: title -> further names.
  """
  sections = {
    "configs": packaged(),
    "methods": methods.names(),
    "students": (*models.names(), _OWN),
    "sources": SOURCES,
    "datasets": (*BUILTIN, "any prepared image set of tensorflow-datasets"),
    **more,
  }
  return "\n".join(
    [
      "every command takes --debug, which shows the traceback of a mistake",
      "",
      "what a config may name",
      *(_line(title, items) for title, items in sections.items()),
      "",
    ]
  )


def keys() -> str:
  """The keys of a config, by section, and the file that explains them."""
  sections: dict[str, list[str]] = {}
  for key in flatten(load_file("cifar100")):
    section, dot, last = key.rpartition(".")
    sections.setdefault(section + dot, []).append(last)
  # Those of the method at hand, not of every config.
  sections["hyper."] = ["the keyword arguments of the method's make()"]
  path = pathlib.Path(configs.__file__).parent / "cifar100.py"
  return "\n".join(
    [
      "keys, explained in",
      f"  {path}",
      *(_line(title, items) for title, items in sorted(sections.items())),
      "",
    ]
  )


def _line(title: str, items: Iterable[str]) -> str:
  return textwrap.fill(
    f"  {title:<9} {', '.join(items)}",
    width=79,
    subsequent_indent=" " * 12,
    break_on_hyphens=False,
    break_long_words=False,
  )


class Parser(argparse.ArgumentParser):
  """The flags of a command: a mistake is one line, help ends with the names.

  Args:
    prog: the command, as a shell would name it.
    description: what it does, with examples, shown line by line.
    add_help: whether there is --help.
    parents: parsers whose flags it has, too.
  """

  def __init__(
    self,
    prog: str | None = None,
    description: str | None = None,
    *,
    add_help: bool = True,
    parents: Iterable[argparse.ArgumentParser] = (),
  ):
    super().__init__(
      prog=prog,
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      add_help=add_help,
      parents=list(parents),
      allow_abbrev=False,
    )

  def format_help(self) -> str:
    """The usual text, and the names."""
    return f"{super().format_help()}\n{epilog()}"

  def error(self, message: str) -> NoReturn:
    """Raises UserError in place of printing the usage."""
    wrong = re.search(r"invalid choice: '(\w+)' \(choose from (.*)\)", message)
    if wrong:
      choices = re.findall(r"\w+", wrong[2])
      hint = nearest(wrong[1], choices)
      raise UserError(f"unknown {wrong[1]!r}: {hint}")
    raise UserError(f"{message} (see {self.prog} --help)")
