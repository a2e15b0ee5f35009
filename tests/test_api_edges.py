"""What the Python API leaves to its caller: warnings, devices, folders."""

import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pytest

import ckd_jax
from ckd_jax.errors import UserError
from tests.helpers.arrays import draw, softmax
from tests.helpers.paths import ROOT
from tests.helpers.runs import linear

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8)
DATA = PIXELS, np.arange(60) % 10
LOGITS = draw(60, 10)


def distil(**options):
  return ckd_jax.distill(
    student=linear(10),
    data=DATA,
    method="kd",
    **{"batch_size": 8, "steps": 2, **options},
  )


@pytest.mark.parametrize("form", ["array", "table", "function"])
def test_probabilities_in_place_of_logits_are_a_warning(form, capfd):
  """One, at the line of the caller; and none where it is said."""
  probs = softmax(LOGITS).astype(np.float32)
  images, _ = DATA
  rows = {
    image.tobytes(): row for image, row in zip(images, probs, strict=True)
  }

  def answer(images):
    return np.stack([rows[image.tobytes()] for image in images])

  ids = [f"train_{row}" for row in range(len(images))]
  answers = {
    "array": probs,
    "table": ckd_jax.Table.from_arrays(probs, ids=ids),
    "function": answer,
  }[form]
  with pytest.warns(UserWarning, match="look like probabilities") as found:
    distil(answers=answers, budget=50)
  assert len(found) == 1
  assert form == "function" or found[0].filename == __file__
  assert capfd.readouterr() == ("", "")
  if form != "table":
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      distil(answers=answers, budget=50, **{"teacher.kind": "probs"})


@pytest.mark.slow
def test_every_core_is_used_after_a_network_was_built():
  """Building one starts JAX; `import ckd_jax` came before."""
  code = """
import os, warnings
{first}
import ckd_jax
import jax, numpy as np
from flax import nnx
class Net(nnx.Module):
  def __init__(self, rngs):
    self.last = nnx.Linear(4, 3, rngs=rngs)
  def __call__(self, x):
    return self.last(x.reshape(len(x), -1))
network = Net(rngs=nnx.Rngs(0))
images = np.random.default_rng(0).integers(0, 256, (24, 2, 2, 1), np.uint8)
with warnings.catch_warnings(record=True) as found:
  warnings.simplefilter("always")
  ckd_jax.distill(
    student=network, data=(images, np.arange(24) % 3), method="supervised",
    steps=2, workdir={workdir!r}, batch_size=1
  )
told = sum("JAX had started" in str(one.message) for one in found)
print(len(os.sched_getaffinity(0)), jax.device_count(), told)
"""
  environment = {
    name: value
    for name, value in os.environ.items()
    if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
  } | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

  def printed(first):
    with tempfile.TemporaryDirectory() as workdir:
      done = subprocess.run(
        [sys.executable, "-c", code.format(first=first, workdir=workdir)],
        capture_output=True,
        text=True,
        env=environment,
      )
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))

  cores, devices, told = printed("")
  assert devices == cores and told == 0
  cores, devices, told = printed("import jax; jax.devices()")
  assert devices == 1 and told == (cores > 1)


def test_a_failed_run_leaves_no_temporary_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
  with pytest.raises(UserError, match="7 answers"):
    distil(answers=LOGITS[:7])
  assert list(tmp_path.iterdir()) == []
  result = distil(answers=LOGITS)
  assert list(tmp_path.iterdir()) == [result.path]
