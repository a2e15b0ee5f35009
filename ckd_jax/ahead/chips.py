"""What each kind of chip can do at most, by its maker's sheet."""

from typing import NamedTuple


class Chip(NamedTuple):
  """One device of a kind, as JAX counts them.

  Attributes:
    name: as a target begins.
    flops: dense bfloat16 operations a second.
    bandwidth: bytes a second of its memory.
    memory: bytes.
    hertz: cycles a second, to read a compiler's cycles: the peak over the
      operations of all matrix units in a cycle; 0 where it counts in time.
  """

  name: str
  flops: float
  bandwidth: float
  memory: float
  hertz: float = 0.0


# Of TPU v4 the compiler knows the two cores of a chip as two devices.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", 137.5e12, 614e9, 16e9, 1.05e9),
    Chip("v5e", 197e12, 819e9, 16e9, 1.5e9),
    Chip("v5p", 459e12, 2765e9, 95e9, 1.75e9),
    Chip("v6e", 918e12, 1640e9, 32e9, 1.75e9),
    Chip("a100", 312e12, 2039e9, 80e9),
    Chip("h100", 989e12, 3352e9, 80e9),
    Chip("h200", 989e12, 4800e9, 141e9),
  )
}
