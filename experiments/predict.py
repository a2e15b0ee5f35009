"""What do the measured programs predict for devices that are not here?

  python experiments/predict.py [--platform=H100|"TPU v5e"] [--each=128]
    [--utilisation=0.2]

What a step takes on one device is the best of what is known, and the table says
which: measured (results/throughput.jsonl), estimated by the TPU's compiler
(results/compiled.jsonl, cycles at 1.5 GHz), or its operations at an assumed
share of the peak. Other methods of a student take as long as its `ckd`, which
their own parts add little to. After it come, with nothing overlapped, the
collectives of results/collectives.jsonl, the programs that XLA made: a latency
each, and the bytes of a ring through its slowest link. Links and latencies are
assumptions, `PLATFORMS`. `each` are images on one device: so many that the
whole batch grows with the devices.
"""

import argparse
import json
import math
from typing import NamedTuple

import study

RESULTS = study.HERE / "results"
DEVICES = (1, 8, 64, 256)
# What students of 32 pixels take of a peak: resnet32's share on an H100.
SMALL = 0.0187


class Platform(NamedTuple):
  """One kind of device, and how they are connected.

  Attributes:
    peak: dense bfloat16 operations a second.
    island: devices that the fast links connect.
    fast: bytes a second that a device sends inside of an island.
    slow: the same between islands.
    latency: seconds of a small all-reduce inside of an island.
    far_latency: the same over islands.
  """

  peak: float
  island: int
  fast: float
  slow: float
  latency: float
  far_latency: float


PLATFORMS = {
  "H100": Platform(989e12, 8, 450e9, 50e9, 15e-6, 40e-6),
  "TPU v5e": Platform(197e12, 256, 90e9, 3e9, 15e-6, 200e-6),
}


def communication(row, devices: int, images: int, platform: Platform) -> float:
  """Seconds of all collectives of a step, one after the other.

  All-reduces are of gradients and statistics, whose size is the network's, and
  of a memory (crd: 4.6 MB in place of 0.3); they are taken as if the batch did
  not matter, which is nearly so. What is gathered is of a batch of `images` on
  each device, taken as linear in it: of n x n exchanges a lower bound.
  """
  if devices == 1:
    return 0.0
  far = devices > platform.island
  speed = platform.slow if far else platform.fast
  latency = platform.far_latency if far else platform.latency
  seconds = 0.0
  for kind, found in row["collectives"].items():
    size = 2 * found["bytes"]
    if kind != "all-reduce":
      size = found["bytes"] * devices * images / row["images"]
    seconds += found["count"] * latency + (1 - 1 / devices) * size / speed
  return seconds


def lines(name: str) -> list[dict]:
  """The rows of a results file."""
  text = (RESULTS / f"{name}.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def known(each: int) -> dict[tuple[str, str], tuple[float, str]]:
  """{(platform, student): (seconds a step, source)}, bfloat16, `ckd` `all`.

  Args:
    each: images of a step on one device.
  """
  found = {}
  for row in lines("compiled"):
    is_step = row["images"] == each and row["method"] == "ckd"
    if row["target"] == "v5e:1x1" and is_step and not row["part"]:
      seconds = row["cycles"] / 1.5e9
      found["TPU v5e", row["student"]] = seconds, "compiler"
  for row in lines("throughput"):
    is_step = row["images_a_step"] == each and row["students_at_once"] == 1
    is_fast = row["dtype"] == "bfloat16" and row["steps_a_launch"] == 32
    if "H100" in row["device"] and is_step and is_fast:
      seconds = row["milliseconds_a_step"] / 1e3
      before = found.get(("H100", row["student"]), (math.inf, ""))
      found["H100", row["student"]] = min(before, (seconds, "measured"))
  return found


def main() -> None:
  """Prints one table for each platform."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--platform", choices=PLATFORMS, action="append")
  parser.add_argument("--each", type=int, default=128)
  parser.add_argument("--utilisation", type=float, default=0.2)
  flags = parser.parse_args()
  rows = {
    (row["student"], row["method"], row["devices"]): row
    for row in lines("collectives")
  }
  steps = known(flags.each)
  for name in flags.platform or PLATFORMS:
    platform, body = PLATFORMS[name], []
    for row in rows.values():
      work = 3 * row["flops_an_image"] * flags.each
      share = SMALL if row["flops_an_image"] < 1e9 else flags.utilisation
      assumed = work / (share * platform.peak), f"at {100 * share:.3g} %"
      compute, source = steps.get((name, row["student"]), assumed)
      cells = [f"{1e3 * compute:.3f}", source]
      for devices in DEVICES:
        talk = communication(row, devices, flags.each, platform)
        rate = devices * flags.each / (compute + talk)
        share = compute / (compute + talk)
        cells.append(f"{_short(rate)} ({100 * share:.0f} %)")
      body.append([row["student"], row["method"], *cells])
    heads = [f"{n} device{'s' * (n > 1)}" for n in DEVICES]
    print(f"\n{name}: images/s (share of the time that computes)\n")
    names = ["student", "method", "ms alone", "source", *heads]
    print(study.markdown(names, body))


def _short(value: float) -> str:
  """Three digits: 1.23 M."""
  power = max(0, int(math.log10(value)) // 3)
  scaled = value / 1000**power
  return f"{scaled:.3g} {['', 'k', 'M', 'G'][power]}".strip()


if __name__ == "__main__":
  main()
