"""What is compiled for TPUs, what must hold of it, and what was recorded."""

import json
import pathlib

from ckd_jax import methods
from ckd_jax.ahead import Case

RECORDED = pathlib.Path(__file__).with_name("recorded.json")
MORE = 1.1  # times the recorded cycles and memory that a change may cost
_SLACK = 2**20  # bytes of memory that it may cost beside
# So many that no fast memory holds the tables, and no other side is as long.
_ROWS = 53_248
_ALL = (("estimator", "all"),)


_OF_IMAGES = [
  name
  for name in methods.names()
  if methods.make(name).inputs in ("any", "images")
]


def _part(method: str, part: str = "loss") -> Case:
  several = methods.make(method).branches != "none"
  student = "one_resnet8" if several else "resnet8"
  return Case(method=method, student=student, images=128, rows=_ROWS, part=part)


CASES = {
  "step of 512 images": Case(hyper=_ALL, images=512, rows=_ROWS),
  "launch of 32 steps": Case(hyper=_ALL, images=128, rows=_ROWS, steps=32),
  "8 chips": Case(target="v5e:2x4", hyper=_ALL, images=512, rows=_ROWS),
  "imagenet on 256 chips": Case(
    target="v5e:16x16",
    config="imagenet",
    student="",
    hyper=_ALL,
    images=256,
    rows=100_000,
  ),
  # A live teacher's answers are no part of a table.
  **{
    f"{method} alone": _part(method)
    for method in _OF_IMAGES
    if not methods.make(method).live
  },
  **{
    f"{method} alone, stage {number}": _part(method, f"stage {number}")
    for method in _OF_IMAGES
    for number in range(1, 1 + len(methods.make(method).stages))
  },
  "icd on 8 chips": Case(
    target="v5e:2x4", method="icd", images=512, rows=_ROWS
  ),
  "wrn_16_2 on 8 chips": Case(
    target="v5e:2x4", student="wrn_16_2", hyper=_ALL, images=512, rows=_ROWS
  ),
}
# The own part of every method is seen above; of one with a memory, one with
# maps and the plainest the whole step, too.
WHOLE = {
  f"{method}, whole": Case(method=method, images=128, rows=_ROWS)
  for method in ("crd", "fitnet", "kd")
}
CASES |= WHOLE
SLOW = {"icd on 8 chips", "wrn_16_2 on 8 chips", *WHOLE}


def recorded() -> dict[str, dict]:
  """{case: figures} of the file."""
  return json.loads(RECORDED.read_text()) if RECORDED.exists() else {}


def to_record(found: dict) -> dict:
  """What of a case's figures is held against it later."""
  return {
    "cycles": found["cycles"],
    "collectives": found["collectives"],
    "loops of unknown length": len(found["endless_loops"]),
    "temporary": found["memory"]["temporary"],
  }


def violations(found: dict, before: dict | None) -> list[str]:
  """What must not be, one line each.

  Args:
    found: figures of a case.
    before: what was recorded of it; None: nothing.
  """
  wrong = [
    f"a loop over {loop['trips']} rows at {loop['source']}, "
    f"{loop['cycles']:,.0f} cycles"
    for loop in found["row_loops"]
  ]
  wrong += [
    f"a copy of {copy['table']}, {copy['bytes'] / 1e6:.0f} MB, at "
    f"{copy['source']}"
    for copy in found["table_copies"]
  ]
  wrong += [f"a transfer to or from the host: {name}" for name in found["host"]]
  if found["float64"]:
    wrong.append(f"{found['float64']} instructions give float64")
  wrong += _too_much_memory(found, (before or {}).get("temporary"))
  if before is None:
    return [*wrong, "nothing is recorded: python -m tests.tpu.record"]
  if found["cycles"] > MORE * before["cycles"]:
    wrong.append(f"{found['cycles']:,} cycles, recorded {before['cycles']:,}")
  now = to_record(found)
  for what in ("collectives", "loops of unknown length"):
    if now[what] != before[what]:
      wrong.append(f"{what}: {now[what]}, recorded {before[what]}")
  return wrong


def _too_much_memory(found: dict, before: int | None) -> list[str]:
  """Of temporary bytes, which must not grow with the tables' rows."""
  temporary, held = found["memory"]["temporary"], found["tables"]
  text = f"{temporary / 1e6:.1f} MB temporary"
  if before is not None:
    grown = temporary > MORE * before + _SLACK
    return [f"{text}, recorded {before / 1e6:.1f}"] if grown else []
  if held and temporary > held / 4:
    return [f"{text} beside tables of {held / 1e6:.1f}"]
  return []
