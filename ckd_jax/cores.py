"""One CPU device per core, chosen before JAX is imported.

A batch that is sharded over them is faster on a CPU. JAX fixes the number of
its CPU devices when it starts, which a network built before `distill` makes it
do; so `import ckd_jax` chooses it, where JAX was not imported before.
"""

import os
import sys

_VARIABLE = "JAX_NUM_CPU_DEVICES"


def count() -> int:
  """The cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # Linux
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def is_chosen() -> bool:
  """Whether the environment says how many CPU devices there are."""
  flags = os.environ.get("XLA_FLAGS", "")
  return (
    _VARIABLE in os.environ or "xla_force_host_platform_device_count" in flags
  )


def choose() -> None:
  """Asks for all of them in the environment, which JAX reads when imported.

  Changes nothing where the number was chosen already, where JAX was imported
  before, or where JAX_PLATFORMS leaves the CPU out.
  """
  platforms = os.environ.get("JAX_PLATFORMS") or "cpu"
  if "jax" not in sys.modules and "cpu" in platforms and not is_chosen():
    os.environ[_VARIABLE] = str(count())
