"""One compiled launch in numbers, for a line, a file and a check."""

from typing import Any

import jax

from ckd_jax.ahead.compiling import Compiled, Launch
from ckd_jax.ahead.reading import Report
from ckd_jax.ahead.targets import Target

# Below it a loop is of a random key's rounds, or costs nothing.
_FEWEST_TRIPS = 8


def figures(
  report: Report, launch: Launch, compiled: Compiled, target: Target
) -> dict[str, Any]:
  """What is known of a launch; whatever is counted is of one step.

  Args:
    report: of the compiled launch.
    launch: what was compiled.
    compiled: what came of it.
    target: for which.
  """
  steps, unit = launch.times, "microseconds" if target.is_gpu else "cycles"
  rows = {launch.batch, launch.images}
  rows |= {count // compiled.devices for count in rows}
  loops = [loop for loop in report.loops if loop.trips in rows]
  return {
    "target": target.name,
    "devices": compiled.devices,
    "steps": steps,
    "images": launch.images,
    unit: round(report.cost / steps, 1 if target.is_gpu else None),
    "kernels": round(report.kernels / steps, 1),
    "roofline": roofline(report, launch, compiled, target),
    "memory": compiled.memory,
    "tables": report.tables,
    "row_loops": [
      {"trips": loop.trips, "source": loop.source, unit: loop.cost / steps}
      for loop in loops
      if loop.trips >= _FEWEST_TRIPS
    ],
    "endless_loops": [
      loop.source for loop in report.loops if loop.trips is None
    ],
    "table_copies": [
      copy._asdict() | {"cost": copy.cost / steps} for copy in report.copies
    ],
    "collectives": {
      kind: {key: value / steps for key, value in found.items()}
      for kind, found in report.collectives.items()
    },
    "uncosted": {
      what: round(size / steps) for what, size in report.uncosted.items()
    },
    "host": list(report.host),
    "float64": report.float64,
    "compile_seconds": round(compiled.seconds, 1),
  }


def roofline(
  report: Report, launch: Launch, compiled: Compiled, target: Target
) -> dict[str, float]:
  """What a step would take if the chip did nothing but what it must.

  Returns:
    operations: of a step on one device, as XLA counts them.
    bytes: that a step moves from and to main memory, by the program's text.
    microseconds: the larger of operations over the chip's peak and bytes over
      its bandwidth.
    ratio: estimated time over that; only where the estimate covers all of a
      step, which it does not on a GPU (convolutions have none).
  """
  chip = target.chip
  moved = report.bytes / launch.times
  work = operations(launch) / compiled.devices
  least = 1e6 * max(work / chip.flops, moved / chip.bandwidth)
  found = {
    "operations": round(work),
    "bytes": round(moved),
    "microseconds": round(least, 2),
  }
  if chip.hertz:
    estimate = 1e6 * report.cost / launch.times / chip.hertz
    found["ratio"] = round(estimate / least, 2)
  return found


def operations(launch: Launch) -> float:
  """Floating-point operations of one step on all devices, as XLA counts them.

  Of the program before it is optimised.
  """
  bare = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), launch.given
  )
  lowered = jax.jit(launch.step).lower(*bare)
  return float((lowered.cost_analysis() or {}).get("flops", 0.0))
