"""Is a run that was killed anywhere the run that was not?

  python experiments/kills.py [COUNT] [SCENARIO ...]

Sends SIGKILL to COUNT (default 200) short runs on digits, at random times and
where the files that they write show that a certain phase has begun; gives the
same command again until it is done, and compares with a run that nobody
disturbed: the student's file and metrics.jsonl byte for byte, and how often a
teacher was called, which it counts itself, in a file of its own: a black box in
its function, a network in what is wrapped around it here. Prints kills by phase
and what failed; exits with 1 if anything did.

Runs are forks of this process, which has imported everything and started no
device: a start costs a second instead of five.
"""

import collections
import json
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import matplotlib.backends.backend_agg
import matplotlib.figure
import sklearn.datasets

from ckd_jax import export, main, run, sweep, teacher
from experiments.counting import COUNT, EXPERTS, IMAGES, PART, STRATA, counted
from experiments.killing import (
  ASKING,
  CHECKPOINT,
  END,
  EXPORT,
  PHASES,
  STAGE,
  STEPS,
  TABLE,
  Started,
  ended,
  kill,
  start,
)

IMPORTED = (matplotlib, sklearn, run)  # slow: once, before the forks
SHORT = (
  "budget=60,batch_size=8,steps=24,eval_every=8,checkpoint_every=4,log_every=1,"
  f"teacher.part_size={PART},"
)
BLACK_BOX = (
  "teacher.source=callable",
  "teacher.path=experiments.counting:oracle",
)


class Scenario(NamedTuple):
  """A command that is killed.

  Attributes:
    share: of all kills, in percent.
    arg: keys of the config, after its name.
    at_risk: questions in flight, at most.
    flags: of the command, beside the config and the work directory.
    main: the command.
    processes: that run it together.
    runs: folders of its runs in the work directory.
    teachers: name of each in the files in which they count -> how many images
      it is asked about.
    exported: whether the finished run is exported, and that is killed, too.
  """

  share: int
  arg: str
  at_risk: int = 1
  flags: tuple[str, ...] = ()
  main: Callable = main.main
  processes: int = 1
  runs: tuple[str, ...] = ("",)
  teachers: Mapping[str, int] = types.MappingProxyType({"": IMAGES})
  exported: bool = False


def black_box(method: str, *more: str) -> str:
  return ",".join((f"method={method}", *BLACK_BOX, *more))


def local(method: str) -> str:
  return f"method={method},teacher.source=checkpoint,teacher.path=TEACHER"


def scenarios() -> dict[str, Scenario]:
  sources = tuple(f"callable:experiments.counting:{name}" for name in EXPERTS)
  return {
    "ckd": Scenario(17, black_box("ckd"), exported=True),
    "crd": Scenario(11, local("crd"), PART),
    "rrd": Scenario(11, local("rrd"), PART),
    "icd": Scenario(10, local("icd"), PART),
    "fsp, a stage": Scenario(13, local("fsp"), PART),
    "ces_kd, three teachers": Scenario(
      9,
      "method=ces_kd",
      flags=(f"--config.teacher.sources={sources!r}",),
      teachers=STRATA,
    ),
    "kd, streamed": Scenario(
      12,
      black_box("kd", "dataset.placement=stream", "teacher.concurrency=4"),
      4,
    ),
    "sweep, together": Scenario(
      11,
      black_box("ckd"),
      flags=("--over=seed=1,2", "--how=together"),
      main=sweep.main,
      runs=("seed=1", "seed=2"),
    ),
    "two processes": Scenario(6, black_box("ckd"), processes=2),
  }


class Trial:
  """One scenario: its undisturbed run, kills, and what failed."""

  def __init__(self, name: str, scenario: Scenario, root, teacher, draw):
    self.name, self.scenario, self.draw = name, scenario, draw
    self.root = root / re.sub(r"\W+", "-", name)
    self.root.mkdir()
    self.teacher = teacher
    self.kills: collections.Counter[str] = collections.Counter()
    self.failures: list[str] = []
    self.repeated = self.runs = 0
    self.wanted = self._wanted()
    begin = time.monotonic()
    self.whole = self.root / "whole"
    self._done(self.whole)  # compiles
    shutil.rmtree(self.whole)
    for calls in self.root.glob("whole.calls*"):
      calls.unlink()
    begin = time.monotonic()
    self._done(self.whole)
    self.seconds = time.monotonic() - begin

  def _wanted(self) -> Iterator[str | None]:
    """Phases in turn, each with a random time after it."""
    phases = [ASKING, TABLE, STEPS, CHECKPOINT, END]
    if "fsp" in self.name:
      phases[3:3] = [STAGE]
    if self.scenario.exported:
      phases.append(EXPORT)
    while True:
      self.draw.shuffle(phases)
      yield from phases
      yield None
      yield None

  def _start(self, folder: pathlib.Path) -> Started:
    os.environ[COUNT] = f"{folder}.calls"
    arg = self.scenario.arg.replace("TEACHER", str(self.teacher))
    argv = [f"--config=configs/digits.py:{SHORT}{arg}", *self.scenario.flags]
    argv += [f"--workdir={folder}"]
    log = pathlib.Path(f"{folder}.log")
    return start(self.scenario.main, argv, log, self.scenario.processes)

  def _export(self, folder: pathlib.Path) -> Started:
    argv = [str(folder), f"--out={folder}-export"]
    return start(export.main, argv, pathlib.Path(f"{folder}.log"))

  def _done(self, folder: pathlib.Path) -> None:
    """The commands to their ends."""
    commands = [self._start, *[self._export] * self.scenario.exported]
    for command in commands:
      statuses = ended(command(folder))
      if any(statuses):
        self._fail(folder, f"ended with {statuses}")
        return

  def _fail(self, folder: pathlib.Path, what: str) -> None:
    self.failures.append(f"{folder}: {what}")
    print(f"FAILED {self.name}: {folder}: {what}", flush=True)

  def one(self, times: int) -> None:
    """A run that is killed so many times, or until it ends."""
    self.runs += 1
    folder = self.root / str(self.runs)
    planned = [next(self.wanted) for _ in range(times)]
    planned.sort(key=lambda one: PHASES.index(one or self.draw.choice(PHASES)))
    before = [one for one in planned if one != EXPORT]
    after = planned[len(before) :]
    self._killed(self._start, folder, folder, before, self.seconds)
    if self.scenario.exported:
      written = folder.with_name(f"{folder.name}-export")
      self._killed(self._export, folder, written, after, 0.3)
    self._check(folder)

  def _killed(self, command, folder, written, planned, seconds: float) -> None:
    """Gives a command, kills it as planned, and gives it until it is done."""
    for wanted in planned:
      started = command(folder)
      where = kill(started, written, self.draw, seconds, wanted)
      statuses = ended(started)
      if where is None:  # it was done before
        break
      self.kills[where] += 1
      if any(status not in (-9, -6, 1, 2) for status in statuses):
        self._fail(folder, f"others ended with {statuses}")
    if any(statuses := ended(command(folder))):
      self._fail(folder, f"ended with {statuses}")

  def _check(self, folder: pathlib.Path) -> None:
    """Compares a run that was killed with the one that was not."""
    log = pathlib.Path(f"{folder}.log").read_text(errors="replace")
    if "Traceback" in log or " is damaged" in log:
      self._fail(folder, "a traceback, or damage, in its log")
    paid = repeated = 0
    for name in self.scenario.runs:
      mine, other = folder / name, self.whole / name
      wanted = sorted(path.name for path in other.glob("metrics*.jsonl"))
      for file in ["student.safetensors", *wanted]:
        if (mine / file).read_bytes() != (other / file).read_bytes():
          self._fail(folder, f"{name}/{file} is another one")
      if list(mine.rglob("*.corrupt")):
        self._fail(folder, "a checkpoint was set aside")
      if list(mine.rglob(".*.tmp")):
        self._fail(folder, f"left {list(mine.rglob('.*.tmp'))}")
      summary = json.loads((mine / "summary.json").read_text())
      paid += summary["paid_calls"]
      repeated += summary["repeated_calls"]
    self._check_calls(folder, paid, repeated)
    if self.scenario.exported:
      mine, other = (
        x.with_name(f"{x.name}-export") for x in (folder, self.whole)
      )
      for path in other.iterdir():
        if (mine / path.name).read_bytes() != path.read_bytes():
          self._fail(folder, f"the export's {path.name} is another one")

  def _check_calls(self, folder, paid: int, repeated: int) -> None:
    """Each question was paid once, but for what was in flight."""
    self.repeated += repeated
    known = {"": repeated}
    if len(self.scenario.teachers) > 1:  # what each one's own table says
      known = {
        path.parent.name.rpartition("-")[2]: json.loads(path.read_text())[
          "repeated_calls"
        ]
        for path in (folder / "table").glob("*/table.json")
      }
    if paid != sum(self.scenario.teachers.values()):
      self._fail(folder, f"paid {paid} calls")
    if sum(known.values()) != repeated:
      self._fail(folder, f"repeated {known}, {repeated} in the summary")
    for name, images in self.scenario.teachers.items():
      lines = pathlib.Path(f"{folder}.calls{name}").read_text().splitlines()
      if len(set(lines)) != images or len(lines) > images + known[name]:
        self._fail(folder, f"{name} {len(lines)} calls, {known[name]} repeated")

  def run(self, count: int) -> None:
    """Kills so many times, and checks what became of it."""
    while sum(self.kills.values()) < count and len(self.failures) < 5:
      before = sum(self.kills.values())
      self.one(min(count - before, self.draw.randint(1, 6)))
    killed = sum(self.kills.values())
    if self.repeated > killed * self.scenario.at_risk:
      self.failures.append(f"{self.repeated} calls repeated by {killed} kills")


def a_teacher(root: pathlib.Path) -> pathlib.Path:
  """A run whose student is a teacher."""
  folder = root / "teacher"
  arg = "method=supervised,teacher.source=none,budget=200,steps=20"
  argv = [f"--config=configs/digits.py:{arg}", f"--workdir={folder}"]
  statuses = ended(start(main.main, argv, root / "teacher.log"))
  if any(statuses):
    raise SystemExit((root / "teacher.log").read_text())
  return folder


def kill_all(count: int, names: list[str], root: pathlib.Path) -> list[str]:
  """Runs the scenarios, prints a line for each; returns what failed."""
  os.environ["XDG_CACHE_HOME"] = str(root / "cache")
  os.environ["PYTHONHASHSEED"] = "0"
  folder, failures = a_teacher(root), []
  teacher.from_run = counted(teacher.from_run)  # of the forks, too
  total: collections.Counter[str] = collections.Counter()
  print(f"| run | kills | {' | '.join(PHASES)} | repeated | failures |")
  print(f"|---|{'---|' * (len(PHASES) + 3)}", flush=True)
  for name, scenario in scenarios().items():
    if names and name.split(",")[0] not in names:
      continue
    trial = Trial(name, scenario, root, folder, random.Random(name))
    trial.run(round(count * (100 if names else scenario.share) / 100))
    _print(name, trial.kills, trial.repeated, len(trial.failures))
    total.update(trial.kills)
    total["repeated"] += trial.repeated
    failures += trial.failures
  repeated = total.pop("repeated", 0)
  _print("all", total, repeated, len(failures))
  return failures


def _print(name: str, kills, repeated: int, failures: int) -> None:
  cells = [sum(kills.values()), *(kills[one] for one in PHASES)]
  print("|", " | ".join(map(str, [name, *cells, repeated, failures])), "|")
  sys.stdout.flush()


if __name__ == "__main__":
  given = int(sys.argv[1]) if len(sys.argv) > 1 else 200
  place = pathlib.Path(tempfile.mkdtemp(prefix="kills-"))
  failed = kill_all(given, sys.argv[2:], place)
  if not failed:
    shutil.rmtree(place)
  sys.exit(int(bool(failed)))
