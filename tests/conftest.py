"""Four CPU devices, strict ranks, and the folder of large real inputs."""

import pathlib

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
# Steps in flight on several CPU devices share one thread pool: on few cores all
# of its threads can end up waiting in all-reduces of different steps.
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
  """Small recorded inputs and outputs of the public implementations."""
  return GOLDEN


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """Real data, checkpoints and tables, beside the checkout; not committed."""
  folder = pathlib.Path(__file__).resolve().parents[1].parent / "shared"
  if not folder.is_dir():
    pytest.skip("needs the real data in ../shared, which is not here")
  return folder
