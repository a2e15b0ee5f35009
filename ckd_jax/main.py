"""The command `ckd-jax train`, or `python -m ckd_jax.main`."""

import sys

from ckd_jax import errors

HELP = """\
ckd-jax train --config=FILE[:method=NAME,key=value,...] [FLAGS]
              (the same: python -m ckd_jax.main)

Distils a student from a table of a teacher's answers. The same command resumes
an unfinished run and prints a finished one's result.

  ckd-jax train --config=configs/digits.py
  ckd-jax train --config=configs/cifar100.py:method=kd,budget=4000
  ckd-jax train --config=configs/cifar100.py --config.seed=2 \\
    --config.teacher.source=callable --config.teacher.path=package.module:ask

flags
  --config=FILE[:key=value,...]  a file, or one of the package by its name
  --config.KEY=VALUE             any key of the config
  --workdir=DIR                  default: runs/<config>-<digest>
  --debug                        show tracebacks
  --compile_for=TARGET           says whether the run fits on such devices, by
                                 their compiler: no device is needed, nothing
                                 is asked or written
  --replay                       makes the step again at which the numbers of
                                 this run were not finite, from
                                 WORKDIR/bad_step, and shows them
  --hosts=auto                   on many hosts, where the cluster says who they
                                 are (TPU pods, SLURM)
  --coordinator=HOST:PORT --processes=N --process=I
                                 the same by hand; every process runs it
"""


def main(argv: list[str]) -> None:
  """Trains one student, as the flags say."""
  if {"-h", "--help"} & set(argv):
    from ckd_jax import ahead, config

    names = config.epilog(targets=ahead.names())
    print(HELP, config.keys(), names, sep="\n", end="")
    return
  target, argv = _compile_for(argv)
  again = "--replay" in argv
  argv = [item for item in argv if item != "--replay"]
  # Imported here, JAX with it, so that a Ctrl-C meanwhile is one line.
  from ckd_jax.system import devices

  devices.use_every_core()
  # Imported only after the number of devices is set.
  from ckd_jax import ahead, config
  from ckd_jax.run import replay, run
  from ckd_jax.system import compile_cache, hosts

  if target is not None:
    ahead.compile_for(config.from_flags(argv)[0], target)
    return
  argv = hosts.join(argv)
  with hosts.together(), compile_cache.persistent_cache():
    (replay if again else run)(*config.from_flags(argv))


def _compile_for(argv: list[str]) -> tuple[str | None, list[str]]:
  """The target of --compile_for, if there is one, and all other flags."""
  flag = "--compile_for"
  rest = [item for item in argv if item.partition("=")[0] != flag]
  found = [item for item in argv if item.partition("=")[0] == flag]
  return (found[-1].partition("=")[2] if found else None), rest


if __name__ == "__main__":
  status = errors.command(main, sys.argv[1:])
  from ckd_jax.system import hosts

  hosts.leave(status)
