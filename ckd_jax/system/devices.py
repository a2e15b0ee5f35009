"""Sets the number of CPU devices, before JAX starts."""

import warnings

from ckd_jax import cores
from ckd_jax.system import console


def use_every_core() -> None:
  """One CPU device per core: a batch sharded over them is faster on a CPU.

  Changes nothing on an accelerator, nor where the number was chosen already
  (JAX_NUM_CPU_DEVICES, XLA_FLAGS). Warns where it comes too late.
  """
  import jax

  if jax.config.jax_num_cpu_devices >= 0 or cores.is_chosen():
    return
  try:
    jax.config.update("jax_num_cpu_devices", cores.count())
  except RuntimeError:  # JAX has started
    if jax.default_backend() == "cpu" and jax.device_count() < cores.count():
      warnings.warn(
        f"JAX had started before: {jax.device_count()} CPU device is used, not"
        f" one for each of {cores.count()} cores. Import ckd_jax before jax, or"
        f" set JAX_NUM_CPU_DEVICES={cores.count()}",
        stacklevel=console.outside(),
      )
