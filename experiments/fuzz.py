"""Thousands of cases that Hypothesis draws, of which the tests try a few.

  python experiments/fuzz.py [COUNT] [losses] [configs] [files]

Tries COUNT (default 10,000) losses on degenerate numbers, configs and flags,
and files that were damaged or forged. Prints cases and failures; exits with 1
if any failed.
"""

import collections
import os
import pathlib
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz import configs, files, losses

KINDS = {"losses": losses, "configs": configs, "files": files}


def tried(kind, count: int) -> tuple[int, collections.Counter, list]:
  """(cases, failures by their text, the first case of each)."""
  failures, first, cases = collections.Counter(), {}, [0]

  @settings(
    max_examples=count,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a failure is counted, not shrunk
    suppress_health_check=list(HealthCheck),
  )
  @given(kind.CASES)
  def one(case):
    cases[0] += 1
    try:
      kind.check(case)
    except (Exception, SystemExit) as error:
      lines = f"{type(error).__name__}: {error}".splitlines()
      text = lines[0][:160]
      failures[text] += 1
      first.setdefault(text, case)

  one()
  return cases[0], failures, first


def main(argv: list[str]) -> int:
  """Prints a table; returns the exit status."""
  jax.config.update("jax_numpy_rank_promotion", "raise")
  count = int(argv[0]) if argv else 10_000
  print("| kind | cases | failures | seconds |\n|---|---|---|---|", flush=True)
  failed = 0
  for name in argv[1:] or KINDS:
    begin = time.monotonic()
    cases, failures, first = tried(KINDS[name], count)
    took = time.monotonic() - begin
    failed += failures.total()
    print(f"| {name} | {cases} | {failures.total()} | {took:.0f} |", flush=True)
    for text, times in failures.most_common():
      print(f"{times} x {text}\n  {first[text]!r:.400}", flush=True)
  return int(failed > 0)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
