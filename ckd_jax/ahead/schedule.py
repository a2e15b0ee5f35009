"""How often each instruction of a program runs, and what it is said to cost."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ckd_jax.ahead.hlo import Instruction, Program

# These are names or wait for others; they take no time of their own.
QUIET = frozenset(
  """parameter constant get-tuple-element tuple bitcast while conditional call
  copy-start copy-done slice-start slice-done async-start async-update
  async-done after-all partition-id replica-id opt-barrier iota""".split()
)
_CYCLES = re.compile(r'"?estimated_cycles"?:"?(\d+)')
_TIME = re.compile(
  r'reification_cost":\[\{"end_to_end_cycles":[^,]*,'
  r'"exec_time_us":"?([\d.eE+-]+)'
)


class Scheduled(NamedTuple):
  """An instruction that is launched by itself.

  Attributes:
    instruction: which one.
    times: how often it runs in one launch; loops of unknown length run once.
    beside: whether it runs beside the others.
  """

  instruction: Instruction
  times: int
  beside: bool = False

  @property
  def cost(self) -> float:
    """Of all its turns: cycles on a TPU, microseconds on a GPU."""
    return 0.0 if self.beside else self.times * (cost(self.instruction) or 0)


def cost(one: Instruction) -> float | None:
  """The compiler's estimate for one turn; None where it has none."""
  attributes = one.attributes
  found = _CYCLES.search(attributes) or _TIME.search(attributes)
  return float(found[1]) if found else None


def scheduled(
  program: Program, name: str = "", times: int = 1, beside: bool = False
) -> Iterator[Scheduled]:
  """Everything that a launch runs; of a conditional the dearest branch.

  Args:
    program: from `parse`.
    name: of a computation; "" is the entry.
    times: how often that is called.
    beside: whether it runs beside the rest.
  """
  for one in program.computations[name or program.entry]:
    yield Scheduled(one, times, beside)
    if one.op == "while":
      turns = times * (trips(one, program) or 1)
      yield from scheduled(program, one.called("body"), turns, beside)
    elif one.op == "conditional":
      branches = [
        list(scheduled(program, branch, times, beside))
        for branch in _branches(one)
      ]
      yield from max(branches, key=lambda all: sum(x.cost for x in all))
    elif one.op == "call":
      yield from scheduled(program, one.called("to_apply"), times, beside)
    elif one.op == "async-start":
      yield from scheduled(program, one.called("calls"), times, True)


def _branches(one: Instruction) -> list[str]:
  return one.called_in("branch_computations") or [
    one.called("true_computation"),
    one.called("false_computation"),
  ]


def trips(loop: Instruction, program: Program) -> int | None:
  """How often a while loop turns; None where the data decide."""
  known = re.search(
    r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)', loop.attributes
  )
  if known:
    return int(known[1])
  body = program.computations[loop.called("condition")]
  parts = {
    part.name: part for one in body for part in (one, *program.inside(one))
  }
  numbers = [
    int(part.operands)
    for part in parts.values()
    if part.op == "constant"
    and part.type.startswith(("s32", "u32"))
    and re.fullmatch(r"-?\d+", part.operands.strip())
  ]
  compared = [part for part in parts.values() if part.op == "compare"]
  if not numbers or len(compared) != 1:
    return None
  return max(numbers)
