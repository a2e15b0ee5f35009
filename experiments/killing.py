"""Starts commands as forks of this process, and kills them in a chosen phase.

What a process is doing is told by the files that it writes.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import jax

from ckd_jax import errors
from ckd_jax.system import hosts

START, ASKING, TABLE, STAGE, STEPS, CHECKPOINT, END, EXPORT = (
  "start",
  "asking",
  "table",
  "stage",
  "steps",
  "checkpoint",
  "end",
  "export",
)
_LASTS = {TABLE: 0.002, CHECKPOINT: 0.08, EXPORT: 0.01}  # seconds, about
PHASES = (START, ASKING, TABLE, STAGE, STEPS, CHECKPOINT, END, EXPORT)


class Started(NamedTuple):
  """Processes of one command.

  Attributes:
    pids: the first of them is the one that is killed.
    log: what all of them print.
    began: time of the file system at their start, in nanoseconds.
  """

  pids: list[int]
  log: pathlib.Path
  began: int


def start(command: Callable, argv: list[str], log: pathlib.Path, processes=1):
  """Forks processes that run a command as a shell would."""
  log.touch()
  began = log.stat().st_mtime_ns
  if processes > 1:
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      port = probe.getsockname()[1]
    argv = [
      *argv,
      f"--coordinator=127.0.0.1:{port}",
      f"--processes={processes}",
    ]
  pids = []
  for index in range(processes):
    own = [*argv, f"--process={index}"] if processes > 1 else argv
    pid = os.fork()
    if not pid:
      _be(command, own, log)
    pids.append(pid)
  return Started(pids, log, began)


def _be(command: Callable, argv: list[str], log: pathlib.Path) -> None:
  """The life of a forked process."""
  status = 99
  try:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    status = errors.command(command, argv)
    sys.stdout.flush()
    if status == 0 and hosts.many():
      jax.distributed.shutdown()
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stderr.flush()
    os._exit(status)


def ended(started: Started, seconds: float = 240) -> list[int]:
  """Waits for all processes; returns their exit statuses."""
  statuses = []
  until = time.monotonic() + seconds
  for pid in started.pids:
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
      if time.monotonic() > until:
        os.kill(pid, signal.SIGKILL)
      time.sleep(0.002)
    statuses.append(os.waitstatus_to_exitcode(found[1]))
  return statuses


def phase(folder: pathlib.Path, began: int) -> str:
  """What the files that a process wrote show it to be doing."""
  fresh, folders = set(), []
  for parent, _, names in os.walk(folder):
    with contextlib.suppress(OSError):  # it may be replaced meanwhile
      if os.stat(parent).st_mtime_ns >= began:
        folders.append(pathlib.Path(parent))
    for name in names:
      with contextlib.suppress(OSError):
        if os.stat(f"{parent}/{name}").st_mtime_ns >= began:
          fresh.add(re.sub(r"^\.(.*)\.\d+\.tmp$", r"\1 half", name))
  if fresh & {"labels.txt", "labels.txt half"} or "export" in folder.name:
    return EXPORT
  if any(
    name.startswith(("student.", "curves.", "summary.")) for name in fresh
  ):
    return END
  if any(
    re.fullmatch(r"\d{8}", path.name) and not (path / "manifest.json").exists()
    for path in folders
  ):
    return CHECKPOINT
  if "metrics.jsonl" in fresh:
    return STEPS
  if any(name.startswith("metrics_stage") for name in fresh):
    return STAGE
  if any(re.match(r"(table|part).* half", name) for name in fresh):
    return TABLE
  if _unnamed(folder):
    return TABLE
  return ASKING if "journal.jsonl" in fresh else START


def _unnamed(folder: pathlib.Path) -> bool:
  """Whether a part is on the disk that its table.json does not name yet."""
  for part in folder.rglob("part-*.npz"):
    with contextlib.suppress(OSError, ValueError):
      info = json.loads((part.parent / "table.json").read_text())
      if int(part.stem[5:]) >= len(info["parts"]):
        return True
  return False


def _is_there(folder: pathlib.Path, wanted: str, began: int) -> bool:
  """Whether a phase has begun; the shortest one is looked for by itself."""
  if wanted != TABLE:
    return phase(folder, began) == wanted
  for table in (*folder.glob("table*"), *folder.glob("table/callable*")):
    with contextlib.suppress(OSError):
      if any(re.match(r"\.(table|part).*tmp", x) for x in os.listdir(table)):
        return True
  return False


def kill(started: Started, folder: pathlib.Path, draw, seconds: float, wanted):
  """Kills the first process; returns the phase that it was in.

  Args:
    started: processes of a command.
    folder: that they write to.
    draw: random numbers.
    seconds: that the command takes undisturbed.
    wanted: the phase to wait for; None for a random time.

  Returns:
    The phase, or None where the command ended before.
  """
  first, until = started.pids[0], time.monotonic() + 240
  moment = time.monotonic() + draw.uniform(0, seconds)
  waiting = True
  while waiting and time.monotonic() < until:
    if os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT):
      return None
    if wanted is None:
      waiting = time.monotonic() < moment
    else:
      waiting = not _is_there(folder, wanted, started.began)
    if wanted != TABLE:
      time.sleep(0.0003)
  if wanted is not None:
    time.sleep(draw.uniform(0, _LASTS.get(wanted, 0.3)))
  os.kill(first, signal.SIGKILL)
  where = phase(folder, started.began)
  if os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT).si_status == 9:
    return where
  return None
