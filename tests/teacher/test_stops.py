"""A Ctrl-C or a SIGTERM while a slow teacher answers is told at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.paths import ROOT

# The second of three answers takes its time.
SLOW = """
import sys, time
import numpy as np
from ckd_jax import errors, teacher
from ckd_jax.data import Split
from tests.helpers import asking as t

def slow(images):
  if asked:
    print("asked", flush=True)
    time.sleep(float(sys.argv[2]))
  asked.append(1)
  return t.answers(images)

asked, t.box = [], slow
split = Split(
  np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), np.uint8),
  np.zeros(3, np.int32), np.asarray(["a", "b", "c"]), "f00d")
box = teacher.from_callable("tests.helpers.asking:box")
sys.exit(errors.command(
  lambda argv: t.build(box, split, range(3), sys.argv[1]), []))
"""


@pytest.mark.parametrize(
  ("signals", "seconds", "status"),
  [
    ([signal.SIGINT], 2, 130),
    ([signal.SIGTERM], 2, 143),
    ([signal.SIGINT, signal.SIGINT], 600, 130),
    ([signal.SIGINT, signal.SIGTERM], 600, 143),
  ],
)
def test_it_is_told_within_a_second(tmp_path, signals, seconds, status):
  with subprocess.Popen(
    [sys.executable, "-c", SLOW, str(tmp_path / "t"), str(seconds)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  ) as process:
    assert process.stdout.readline().startswith("asking ")
    assert process.stdout.readline() == "asked\n"
    begun = time.monotonic()
    process.send_signal(signals[0])
    first = process.stderr.readline()
    assert first.startswith("stopping: waiting for the answers under way")
    assert time.monotonic() - begun < 1
    for number in signals[1:]:
      process.send_signal(number)
    (last,) = process.stderr.readlines()
  kept = 2 if len(signals) == 1 else 1  # the answer under way was waited for
  assert last == (
    f"ckd_jax: stopped; {kept} of 3 answers are kept: the same command asks for"
    " the others\n"
  )
  assert process.returncode == status
