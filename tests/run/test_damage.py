"""Damaged folders and killed runs: short forms of two experiments."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ckd_jax.run import logger
from experiments import flips
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
  ("name", "count"),
  [
    ("table", 30),
    ("table being filled", 20),
    pytest.param("export", 100, marks=pytest.mark.slow),
    pytest.param("finished run", 100, marks=pytest.mark.slow),
    pytest.param("stopped run", 60, marks=pytest.mark.slow),
    pytest.param("weights", 60, marks=pytest.mark.torch),
    pytest.param("older weights", 60, marks=pytest.mark.torch),
  ],
)
def test_damage_is_told_or_without_effect(name, count):
  if "weights" in name:
    pytest.importorskip("torch")
  counts, lines = flips.count(flips.KINDS[name], count)
  assert not lines
  flipped = [number for (what, _), number in counts.items() if what == "flip"]
  assert sum(flipped) == count
  assert counts["flip", "one line"] > 0


def test_a_run_that_was_killed_twice_is_the_run_that_was_not(tmp_path):
  """The teacher counts for itself, in a file of its own."""
  own = {"JAX_NUM_CPU_DEVICES": "1", "XDG_CACHE_HOME": str(tmp_path)}
  own |= {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
  done = subprocess.run(
    [sys.executable, "-m", "tests.helpers.killed", tmp_path],
    env=os.environ | own | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=200,
  )
  found = json.loads(done.stdout)
  log = (tmp_path / "killed.log").read_text()
  assert found["statuses"] == [0, 0] and None not in found["phases"], log
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  for name in ("student.safetensors", "metrics.jsonl"):
    assert (whole / name).read_bytes() == (killed / name).read_bytes()
  lines = logger.read_metrics(killed / "metrics.jsonl")
  steps = [line["step"] for line in lines if "loss" in line]
  assert steps == list(range(1, 25))
  calls = (tmp_path / "killed.calls").read_text().splitlines()
  summary = json.loads((killed / "summary.json").read_text())
  assert len(set(calls)) == summary["paid_calls"] == 24
  assert len(calls) <= 24 + summary["repeated_calls"] <= 25


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
