"""A step gives the same numbers however many devices share it."""

import json
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

TOLERANCE = 2e-4  # float32 sums in another order, through a whole step


@pytest.mark.slow
# All of them take ten minutes: experiments/README.md has what came out. These
# have groups, maps with 1 x 1 convolutions, every pair, and a memory.
@pytest.mark.parametrize("name", ["ckd", "fitnet", "icd", "crd"])
def test_a_method_on_1_2_4_and_8_devices_and_both_axes(name):
  script = ROOT / "tests/helpers/on_devices.py"
  ended = subprocess.run(
    [sys.executable, script, name],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  found = json.loads(ended.stdout.splitlines()[-1])
  (by_mesh,) = found.values()
  assert set(by_mesh) == {"1x1", "1x2", "1x4", "1x8", "2x4", "2 on 1x4"}
  for mesh, deviation in by_mesh.items():
    assert deviation < TOLERANCE, (mesh, deviation)
