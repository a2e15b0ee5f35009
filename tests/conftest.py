"""Four CPU devices, strict ranks, and the folder of large real inputs."""

import os
import pathlib

# Compiling is most of the time of most tests; what XLA's optimisations do to
# the numbers is seen in CI, where slow tests of training have this set to 0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import numpy as np
import pytest

from ckd_jax import data
from tests.helpers.paths import GOLDEN, SHARED
from tests.helpers.runs import CNN, LINEAR, LINEAR_TEACHER, QUICK, run

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
# Steps in flight on several CPU devices share one thread pool: on few cores all
# of its threads can end up waiting in all-reduces of different steps.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
  """Small recorded inputs and outputs of the public implementations."""
  return GOLDEN


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """Real data, checkpoints and tables, beside the checkout; not committed."""
  folder = SHARED
  if not folder.is_dir():
    pytest.skip("needs the real data of CONTRIBUTING.md in ../shared")
  return folder


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
  """Tests share their compiled programs, which is most of their time.

  Every worker has a folder of its own: JAX does not write its files at once.
  """
  folder = tmp_path_factory.getbasetemp() / "compiled"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  yield
  jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def hypothesis_home(tmp_path_factory):
  """What Hypothesis keeps is kept out of the checkout."""
  from hypothesis import configuration

  configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))


@pytest.fixture(scope="session")
def digits():
  return data.load("digits")


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory):
  """A trained teacher, as a finished run of ours."""
  workdir = tmp_path_factory.mktemp("teacher")
  summary = run(
    workdir,
    LINEAR,
    arg="method=supervised,teacher.source=none,budget=1438,val_fraction=0,"
    "steps=100,eval_every=100,checkpoint_every=100,batch_size=64",
  )
  assert summary["test_accuracy"] > 90
  return workdir


@pytest.fixture(scope="session")
def paid(teacher_run, tmp_path_factory):
  """A table that holds the teacher's answers about all of the 80 images."""
  folder = tmp_path_factory.mktemp("paid")
  summary = run(
    folder / "run",
    LINEAR,
    f"--config.teacher.path={teacher_run}",
    arg=QUICK + "method=kd,teacher.source=checkpoint",
  )
  return folder / "run" / "table", summary


@pytest.fixture(scope="session")
def fitted(teacher_run, tmp_path_factory):
  """A run of ckd with a fitted offset, from a local teacher; and its folder."""
  workdir = tmp_path_factory.mktemp("fitted") / "run"
  summary = run(
    workdir,
    CNN,
    LINEAR_TEACHER,
    f"--config.teacher.path={teacher_run}",
    arg=QUICK + "teacher.source=checkpoint",
    draw=True,
  )
  return summary, workdir


@pytest.fixture(scope="session")
def answers(digits) -> np.ndarray:
  """float32[1438, 10], right about every image of digits and never sure."""
  noise = np.random.default_rng(0).normal(size=(len(digits.train.labels), 10))
  return (noise + 5 * np.eye(10)[digits.train.labels]).astype(np.float32)
