"""The console script: `ckd-jax COMMAND`, also `python -m ckd_jax COMMAND`."""

import sys

from ckd_jax import errors

HELP = """\
ckd-jax COMMAND [FLAGS]          ckd-jax COMMAND --help says more

  train    distil a student: ckd-jax train --config=configs/digits.py
  sweep    many runs of one config
  report   methods x budgets, mean and deviation over seeds
  table    import, show and check a teacher's answers
  export   the student of a run, alone

Each is also `python -m ckd_jax.COMMAND`; train is `python -m ckd_jax.main`.
"""
COMMANDS = ("export", "report", "sweep", "table", "train")


def main(argv: list[str] | None = None) -> None:
  """Runs the command that the first argument names, and exits."""
  argv = sys.argv[1:] if argv is None else argv
  name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
  if name in ("-h", "--help"):
    print(HELP, end="")
    return
  status = errors.command(lambda rest: _run(name, rest), rest)
  if name in ("sweep", "train") and status != 2:
    from ckd_jax.system import hosts

    hosts.leave(status)
  sys.exit(status)


def _run(name: str, argv: list[str]) -> None:
  if name == "train":
    from ckd_jax.main import main as command
  elif name == "sweep":
    from ckd_jax.sweep import main as command
  elif name == "report":
    from ckd_jax.report import main as command
  elif name == "table":
    from ckd_jax.table.__main__ import main as command
  elif name == "export":
    from ckd_jax.export import main as command
  else:
    hint = errors.nearest(name, COMMANDS)
    raise errors.UserError(f"unknown command {name!r}: {hint}")
  command(argv)


if __name__ == "__main__":
  main()
