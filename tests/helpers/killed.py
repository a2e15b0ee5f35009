"""A short run that is killed twice; run as a script, in a process of its own.

  python -m tests.helpers.killed FOLDER

Runs are forks of this process, which has imported everything and started no
device. Prints the phases in which they were killed, and all exit statuses.
"""

import json
import os
import pathlib
import random
import sys

from ckd_jax import main, run
from experiments.counting import COUNT
from experiments.killing import ASKING, CHECKPOINT, ended, kill, start
from tests.helpers.paths import DIGITS

IMPORTED = (run,)  # slow: once, before the forks
ARG = (
  "method=kd,teacher.source=callable,teacher.path=experiments.counting:oracle,"
  "student=tests.helpers.runs:linear,budget=30,batch_size=8,steps=24,"
  "eval_every=12,checkpoint_every=4,log_every=1,teacher.part_size=12"
)


def started(folder: pathlib.Path):
  os.environ[COUNT] = f"{folder}.calls"
  argv = [f"--config={DIGITS}:{ARG}", f"--workdir={folder}"]
  return start(main.main, argv, pathlib.Path(f"{folder}.log"))


def all_of_them(place: pathlib.Path) -> dict:
  whole = ended(started(place / "whole"))
  phases = []
  for wanted in (ASKING, CHECKPOINT):
    command = started(place / "killed")
    folder = place / "killed"
    phases.append(kill(command, folder, random.Random(0), 0, wanted))
    ended(command)
  return {
    "phases": phases,
    "statuses": whole + ended(started(place / "killed")),
  }


if __name__ == "__main__":
  print(json.dumps(all_of_them(pathlib.Path(sys.argv[1]))))
