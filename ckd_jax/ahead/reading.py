"""What a compiled program's text says about its launch: estimates, all of it.

Cycles and microseconds are the compilers' own, and they are no times: compare
two programs by them, and look where they are spent.
"""

import collections
import math
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from ckd_jax.ahead.hlo import Array, Instruction, Program, parse
from ckd_jax.ahead.schedule import QUIET, Scheduled, cost, scheduled, trips

COLLECTIVES = frozenset(
  """all-reduce all-gather all-to-all reduce-scatter collective-permute
  collective-broadcast ragged-all-to-all""".split()
)
_HOST = frozenset("infeed outfeed send recv".split())
# Not copy-start: it fetches ahead what the fast memory has room for.
_COPYING = frozenset(
  "copy transpose reshape pad slice convert bitcast-convert fusion".split()
)
# Whose results are their operands, in another order or of another type.
_MOVING = frozenset("copy transpose convert slice bitcast".split())
_IN_PLACE = frozenset("scatter dynamic-update-slice".split())
# What a compiler does with kernels of its own and makes no estimate of.
_PARTICULAR = frozenset("gather scatter sort reverse custom-call".split())
# They read or write a part of a large operand.
_PARTIAL = frozenset(
  "gather scatter dynamic-slice dynamic-update-slice slice".split()
)
_FETCHES = frozenset("copy-start slice-start".split())
_SMALL = 65_536  # bytes: what costs next to nothing even without an estimate


class Shaped(Protocol):
  """An array, or what stands for one."""

  @property
  def shape(self) -> tuple[int, ...]: ...


class Loop(NamedTuple):
  """A while loop; `trips` is None where the data decide how often it turns."""

  trips: int | None
  times: int  # that it is begun
  cost: float  # of all its turns, in the report's unit
  source: str


class Copy(NamedTuple):
  """An instruction whose result is as large as a table."""

  table: str
  op: str
  bytes: int
  times: int
  cost: float
  source: str


class Dear(NamedTuple):
  """An instruction and what it costs, in the report's unit."""

  cost: float
  times: int
  name: str
  type: str
  label: str
  source: str


class Report(NamedTuple):
  """One launch, on one of its devices.

  Attributes:
    cost: estimated cycles on a TPU; on a GPU the microseconds of fusions.
    kernels: instructions that are launched by themselves.
    bytes: that they read from main memory and write to it.
    tables: bytes of those tables that the program is given.
    loops: all while loops.
    copies: of tables, in whole.
    collectives: {kind: {"count": n, "bytes": of results}}.
    uncosted: {what: bytes of results} without an estimate.
    host: transfers to the host or from it, by name.
    float64: instructions whose result is of 64-bit floats.
    dearest: all instructions that have an estimate, the dearest first.
  """

  cost: float
  kernels: int
  bytes: int
  tables: int
  loops: tuple[Loop, ...]
  copies: tuple[Copy, ...]
  collectives: dict[str, dict[str, int]]
  uncosted: dict[str, int]
  host: tuple[str, ...]
  float64: int
  dearest: tuple[Dear, ...]


def read(text: str, tables: Mapping[str, Shaped]) -> Report:
  """Reads a compiled program.

  Args:
    text: `compiled.as_text()`.
    tables: {name: array} of the arguments of which no copy should be made, in
      the shapes that are used: a table's rows may be padded.
  """
  program = parse(text)
  everything = list(scheduled(program))
  own = [one for one in everything if not one.beside]
  kernels = [one for one in own if _is_kernel(one.instruction)]
  return Report(
    cost=sum(one.cost for one in own),
    kernels=sum(one.times for one in kernels),
    bytes=_traffic(everything, program),
    tables=_given(program, tables),
    loops=tuple(_loops(everything, program)),
    copies=tuple(_copies(everything, program, tables)),
    collectives=_collectives(everything, program),
    uncosted=_uncosted(own, program),
    host=tuple(_host(everything, program)),
    float64=sum(
      part.type.startswith(("f64", "c128"))
      for body in program.computations.values()
      for part in body
    ),
    dearest=tuple(_dearest(own, program)),
  )


def _is_kernel(one: Instruction) -> bool:
  return one.op not in QUIET and not one.op.endswith(("-done", "-update"))


def _base(op: str) -> str:
  return re.sub(r"-(start|done|update)$", "", op)


def _loops(everything: Iterable[Scheduled], program: Program):
  for one, times, _ in everything:
    if one.op == "while":
      turns = trips(one, program)
      inside = scheduled(program, one.called("body"), times * (turns or 1))
      total = sum(part.cost for part in inside)
      yield Loop(turns, times, total, _where(one, program))


def _copies(everything: Iterable[Scheduled], program: Program, tables):
  for item in everything:
    one = item.instruction
    parts = {part.op for part in program.inside(one)}
    # What is written in place is no copy.
    if one.op not in _COPYING or parts & _IN_PLACE:
      continue
    moved = parts <= _MOVING | {"parameter"}
    held = [
      (math.prod(table.shape), name)
      for name, table in tables.items()
      if any(_holds(array, table.shape, moved) for array in one.arrays)
    ]
    if held:
      where = _where(one, program)
      yield Copy(max(held)[1], one.op, one.bytes, item.times, item.cost, where)


def _given(program: Program, tables: Mapping[str, Shaped]) -> int:
  """Bytes of the arguments that are tables; jit drops what is not used."""
  arguments = [
    array
    for one in program.computations[program.entry]
    if one.op == "parameter"
    for array in one.arrays
  ]
  return sum(
    array.bytes
    for array in arguments
    if any(_holds(array, table.shape, False) for table in tables.values())
  )


def _holds(array: Array, table: tuple[int, ...], moved: bool) -> bool:
  """Whether an array has the table's rows, and as many numbers as are used.

  Another layout keeps the order of the axes. Where rows do not come first, the
  table is turned over if its numbers are only moved; if they are computed with,
  a batch is compared with all rows, and that is no copy.
  """
  places = array.shape if moved else array.shape[:1]
  return table[0] in places and array.elements >= math.prod(table)


def _collectives(everything: Iterable[Scheduled], program: Program):
  found = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
  for part, times in _parts(everything, program):
    if (kind := _base(part.op)) in COLLECTIVES:
      found[kind]["count"] += times
      found[kind]["bytes"] += times * _result_bytes(part)
  return dict(found)


def _parts(everything: Iterable[Scheduled], program: Program):
  """(instruction, times) of all that is begun, in fusions too, each once."""
  for item in everything:
    if item.instruction.op.startswith("async-"):
      continue  # what it wraps comes by itself
    for part in program.inside(item.instruction):
      if not part.op.endswith("-done"):
        yield part, item.times


def _result_bytes(one: Instruction) -> int:
  """Of what a collective gives; a -start also names what it is given."""
  if one.op.endswith("-start") and one.op != "all-reduce-start":
    given = len(one.operand_names)
    return sum(array.bytes for array in one.arrays[given : 2 * given])
  return one.bytes


def _uncosted(own: Iterable[Scheduled], program: Program) -> dict[str, int]:
  found = collections.Counter()
  for item in own:
    one = item.instruction
    if (
      not _is_kernel(one)
      or _base(one.op) in COLLECTIVES
      or cost(one) is not None
    ):
      continue
    inside = {part.op for part in program.inside(one)} & _PARTICULAR
    if inside or one.bytes > _SMALL:
      target = re.search(r'custom_call_target="([^"]*)"', one.attributes)
      what = target[1] if target else "+".join(sorted(inside)) or one.op
      found[what] += item.times * one.bytes
  return dict(found.most_common())


def _host(everything: Iterable[Scheduled], program: Program):
  for part, _ in _parts(everything, program):
    target = re.search(r'custom_call_target="([^"]*)"', part.attributes)
    is_callback = target and "callback" in target[1].lower()
    if _base(part.op) in _HOST or is_callback:
      yield part.name


def _dearest(own: Iterable[Scheduled], program: Program) -> list[Dear]:
  found = [
    Dear(
      item.cost,
      item.times,
      item.instruction.name,
      item.instruction.type.split("{")[0].lstrip("("),
      item.instruction.label,
      _where(item.instruction, program),
    )
    for item in own
    if item.cost
  ]
  return sorted(found, reverse=True)


def _where(one: Instruction, program: Program) -> str:
  """The line of code; of a fusion without one, that of a part of it."""
  parts = [one, *reversed(list(program.inside(one)))]
  found = (program.source(part) or part.label for part in parts)
  return next(filter(None, found), "")


def _traffic(everything: Iterable[Scheduled], program: Program) -> int:
  """Bytes that a launch moves from and to main memory.

  A TPU's layouts say which arrays lie in its fast memory, S(1); they count for
  nothing. Of an operand that is read by parts, a part as large as the result
  counts.
  """
  named = {
    part.name: part for body in program.computations.values() for part in body
  }
  total = 0
  for one, times, _ in everything:
    if one.op in _FETCHES:  # (to, from, ...)
      total += times * sum(map(_in_main_memory, one.arrays[:2]))
    if not _is_kernel(one):
      continue
    reads = [
      sum(map(_in_main_memory, named[name].arrays))
      for name in one.operand_names
      if name in named
    ]
    if {part.op for part in program.inside(one)} & _PARTIAL:
      reads = [min(size, one.bytes) for size in reads]
    total += times * (sum(map(_in_main_memory, one.arrays)) + sum(reads))
  return total


def _in_main_memory(array: Array) -> int:
  return 0 if "S(1)" in array.layout else array.bytes
