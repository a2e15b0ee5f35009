"""The command: `python -m ckd_jax.main --config=configs/digits.py`."""

import contextlib
import os
import sys

from ckd_jax import errors

HELP = """\
python -m ckd_jax.main --config=FILE[:method=NAME,key=value,...]
                       [--config.key=value ...] [--workdir=DIR] [--debug]
                       [--hosts=auto | --coordinator=HOST:PORT --processes=N
                                       --process=I]

Distils a student from a table of a teacher's answers. FILE is one of configs/.
The same command resumes an unfinished run and prints a finished one's result.
On many hosts every process runs it: with --hosts=auto where the cluster says
who they are (TPU pods, SLURM), else with the first one's address.
"""


def main(argv: list[str]) -> None:
  """Flags in, `train.run(config, workdir)` out."""
  if {"-h", "--help"} & set(argv):
    print(HELP, end="")
    return
  use_every_core()
  # Only now that the devices are settled.
  from ckd_jax import config
  from ckd_jax.run import run
  from ckd_jax.system import compile_cache, hosts

  argv = hosts.join(argv)
  with hosts.together(), compile_cache.persistent_cache():
    run(*config.from_flags(argv))


def use_every_core() -> None:
  """One CPU device per core: a batch sharded over them is faster on a CPU.

  Changes nothing on an accelerator, nor where the number was chosen already
  (JAX_NUM_CPU_DEVICES, XLA_FLAGS) or JAX has started its devices.
  """
  import jax

  chosen = os.environ.get("XLA_FLAGS", "")
  if (
    jax.config.jax_num_cpu_devices >= 0
    or "xla_force_host_platform_device_count" in chosen
  ):
    return
  is_linux = hasattr(os, "sched_getaffinity")
  cores = len(os.sched_getaffinity(0)) if is_linux else os.cpu_count()
  with contextlib.suppress(RuntimeError):  # too late to choose
    jax.config.update("jax_num_cpu_devices", cores)


if __name__ == "__main__":
  status = errors.command(main, sys.argv[1:])
  from ckd_jax.system import hosts

  hosts.leave(status)
