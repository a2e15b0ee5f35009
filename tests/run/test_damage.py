"""Damaged folders and killed runs: short forms of two experiments."""

import os
import subprocess
import sys

import numpy as np
import pytest

from experiments import flips
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
  ("name", "count"),
  [
    ("table", 30),
    ("table being filled", 40),
    pytest.param("export", 100, marks=pytest.mark.slow),
    pytest.param("finished run", 100, marks=pytest.mark.slow),
    pytest.param("stopped run", 60, marks=pytest.mark.slow),
  ],
)
def test_damage_is_told_or_without_effect(name, count):
  counts, lines = flips.count(flips.KINDS[name], count)
  assert not lines
  flipped = [number for (what, _), number in counts.items() if what == "flip"]
  assert sum(flipped) == count
  assert counts["flip", "one line"] > 0


@pytest.mark.slow
def test_a_killed_run_is_the_run_that_was_not():
  done = subprocess.run(
    [sys.executable, ROOT / "experiments/kills.py", "24"],
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=1500,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  *_, total = done.stdout.splitlines()
  kills = [int(cell) for cell in total.strip("| ").split(" | ")[1:]]
  assert kills[0] == 24 and kills[-1] == 0
  assert np.count_nonzero(kills[1:-2]) > 4  # phases in which they fell
