"""A compiled program's text (optimised HLO) as instructions, in their order."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128}
_WIDTH = re.compile(r"^(?:bf|f|s|u)(\d+)")


class Array(NamedTuple):
  """One array of a type.

  Attributes:
    kind: "f32".
    shape: as it is indexed.
    layout: what stands in braces, with the memory space: "1,0:T(8,128)S(1)".
  """

  kind: str
  shape: tuple[int, ...]
  layout: str

  @property
  def elements(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    known = _BITS.get(self.kind)
    found = _WIDTH.match(self.kind)
    bits = known or (int(found[1]) if found else 0)  # a token has none
    return math.ceil(self.elements * bits / 8)


class Instruction(NamedTuple):
  """One line of a computation.

  Attributes:
    name: without its %.
    type: of the result.
    op: "fusion".
    operands: what stands in its parentheses.
    attributes: what stands after them.
    is_root: whether it is the computation's result.
  """

  name: str
  type: str
  op: str
  operands: str
  attributes: str
  is_root: bool

  @property
  def arrays(self) -> list[Array]:
    """Of its result, in their order."""
    return [
      Array(kind, tuple(map(int, filter(None, dims.split(",")))), layout or "")
      for kind, dims, layout in _ARRAY.findall(self.type)
    ]

  @property
  def bytes(self) -> int:
    return sum(array.bytes for array in self.arrays)

  @property
  def operand_names(self) -> list[str]:
    return re.findall(r"%([\w.\-]+)", self.operands)

  @property
  def label(self) -> str:
    """What it came from, as JAX names it: "jit(launch)/gather"."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ""

  def called(self, attribute: str) -> str:
    """The computation that an attribute such as "body" names."""
    return re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)[1]

  def called_in(self, attribute: str) -> list[str]:
    """The computations of an attribute that lists them in braces."""
    found = re.search(rf"\b{attribute}={{([^}}]*)}}", self.attributes)
    return re.findall(r"%?([\w.\-]+)", found[1]) if found else []


class Program(NamedTuple):
  """All computations by name.

  Attributes:
    computations: {name: instructions}.
    entry: the name of the one that is launched.
    sources: {stack frame: "step/state.py:118"}.
  """

  computations: dict[str, list[Instruction]]
  entry: str
  sources: dict[str, str]

  def source(self, one: Instruction) -> str:
    """The line of code that it came from, or ""."""
    if frame := re.search(r"stack_frame_id=(\d+)", one.attributes):
      return self.sources.get(frame[1], "")
    file = re.search(r'source_file="([^"]*)"', one.attributes)
    line = re.search(r"source_line=(\d+)", one.attributes)
    return f"{_short(file[1])}:{line[1]}" if file and line else ""

  def inside(self, one: Instruction) -> Iterator[Instruction]:
    """What a fusion or an asynchronous instruction is made of, or itself."""
    if "calls=" not in one.attributes:
      yield one
      return
    for part in self.computations[one.called("calls")]:
      yield from self.inside(part)


def parse(text: str) -> Program:
  """Reads a compiled program's text."""
  computations: dict[str, list[Instruction]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if head := _HEAD.match(line):
      current = computations.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif current is not None and (found := _LINE.match(line)):
      parts = _split(found[3])
      current.append(Instruction(found[2], *parts, is_root=bool(found[1])))
  return Program(computations, entry, _sources(text))


def _split(rest: str) -> tuple[str, str, str, str]:
  """'TYPE op(operands), attributes' in its four parts."""
  end = _closing(rest, stop=" ")
  kind, rest = rest[:end], rest[end + 1 :]
  op, _, rest = rest.partition("(")
  end = _closing(rest, stop=")")
  return kind, op, rest[:end], rest[end + 1 :]


def _closing(text: str, stop: str) -> int:
  """Where `stop` stands outside of all brackets."""
  depth = 0
  for place, letter in enumerate(text):
    if not depth and letter == stop:
      return place
    depth += (letter in "({[") - (letter in ")}]")
  return len(text)


def _sources(text: str) -> dict[str, str]:
  """{stack frame: "file:line"} of the tables that stand before all else."""
  names = dict(re.findall(r'^(\d+) "([^"]*)"$', _part(text, "FileNames"), re.M))
  places = {
    place: f"{_short(names.get(file, ''))}:{line}"
    for place, file, line in re.findall(
      r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)",
      _part(text, "FileLocations"),
      re.M,
    )
  }
  frames = re.findall(
    r"^(\d+) \{file_location_id=(\d+)", _part(text, "StackFrames"), re.M
  )
  return {frame: places.get(place, "") for frame, place in frames}


def _part(text: str, title: str) -> str:
  found = re.search(rf"^{title}\n(.*?)\n\n", text, re.M | re.S)
  return found[1] if found else ""


def _short(path: str) -> str:
  """A file of a package from the package's folder on."""
  return path.rpartition("/ckd_jax/")[2].rpartition("site-packages/")[2]
