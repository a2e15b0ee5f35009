"""A step gives the same numbers however many devices share it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

TOLERANCE = 2e-4  # float32 sums in another order, through a whole step


@pytest.mark.slow
# All of them take ten minutes: experiments/README.md has what came out.
@pytest.mark.parametrize("names", [["ckd", "fitnet", "icd"], ["crd", "rrd"]])
def test_methods_on_1_2_4_and_8_devices_and_both_axes(names):
  script = pathlib.Path(__file__).with_name("on_devices.py")
  ended = subprocess.run(
    [sys.executable, script, *names],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
    # The numbers are the point, and most of the time would be XLA's.
    env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
  )
  found = json.loads(ended.stdout.splitlines()[-1])
  assert list(found) == names
  for name, by_mesh in found.items():
    assert set(by_mesh) == {
      *("1x1", "1x2", "1x4", "1x8", "2x4"),
      "2 on 1x4",
    }
    for mesh, deviation in by_mesh.items():
      assert deviation < TOLERANCE, (name, mesh, deviation)
