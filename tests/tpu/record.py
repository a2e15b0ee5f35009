"""Compiles every case, and writes recorded.json anew.

python -m tests.tpu.record            # minutes on two cores; all cases
python -m tests.tpu.record "8 chips"  # only those whose names hold the words
"""

import json
import sys

from ckd_jax import ahead
from tests.tpu import cases, compiling


def main(words: list[str]) -> None:
  """Replaces what was recorded of these cases; keeps that of the others."""
  kept = {
    name: found
    for name, found in cases.recorded().items()
    if name in cases.CASES
  }
  for name, case in cases.CASES.items():
    if words and not any(word in name for word in words):
      continue
    try:
      found = compiling.figures(case)
    except ahead.TooLarge as error:
      print(f"{name}: {error}", flush=True)
      continue
    kept[name] = cases.to_record(found)
    print(name, json.dumps(kept[name]), *cases.violations(found, kept[name]))
    ordered = {name: kept[name] for name in cases.CASES if name in kept}
    cases.RECORDED.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
  main(sys.argv[1:])
