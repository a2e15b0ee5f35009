"""The training loop: steps, evaluations and checkpoints, until each run ends.

One loop serves one student and several in one program; `Lanes` says how they
lie on the devices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ckd_jax.run import selection
from ckd_jax.run.context import RunContext
from ckd_jax.run.launcher import Launched, Launcher, Timer
from ckd_jax.run.logger import Display, Diverged
from ckd_jax.run.skipping import Skips
from ckd_jax.run.standing import Standing, Trainable, save
from ckd_jax.run.stopping import Stop
from ckd_jax.step import SKIPPED, State, is_sound
from ckd_jax.system import hosts

_is_sound = jax.jit(is_sound)


class Lanes(NamedTuple):
  """How the students of a loop lie on the devices.

  Attributes:
    launched: programs and arrays for all students at once.
    state: of all students, before the first launch.
    predict: state -> `selection.predict_splits` of each student.
    metrics_of: (metrics, place) -> the metrics of one student.
    take: (state, place) -> the state of one student.
    put: (state, place, part) -> the state with one student's part replaced.
    holds: number of students left -> whether to keep these lanes.
  """

  launched: Launched
  state: State
  predict: Callable[[State], list[dict[str, np.ndarray]]]
  metrics_of: Callable[[Mapping[str, Any], int], Mapping[str, Any]]
  take: Callable[[State, int], State]
  put: Callable[[State, int, State], State]
  holds: Callable[[int], bool]


Arrange = Callable[[list[RunContext], list[State]], Lanes]


def alone(contexts: list[RunContext], states: list[State]) -> Lanes:
  """The lanes of one student."""
  (context,), (state,) = contexts, states
  return Lanes(
    launched=context,
    state=state,
    predict=lambda state: [selection.predict_splits(context, state)],
    metrics_of=lambda metrics, place: metrics,
    take=lambda state, place: state,
    put=lambda state, place, part: part,
    holds=bool,
  )


class _Student:
  """One student of the loop; its record and best weights change in place."""

  def __init__(self, run: Trainable, standing: Standing, *, bar: bool):
    self.run = run
    _, self.state, self.best, self.record = standing
    self.context = run.context.reordered(self.record.rollbacks)
    self.skips = self.context.plan.bad_numbers == "skip"
    self.intervals = self.context.plan.intervals
    self.counted = Skips(self.intervals.steps)
    self.display = Display(
      run.workdir / "metrics.jsonl",
      self.intervals.steps,
      self.context.images_per_step,
      kind=self.context.plan.recipe.view.kind,
      first=standing.step,
      log=hosts.first(),
      bar=bar and hosts.first(),
      mode=self.context.plan.offset.mode,
    )

  def is_done(self, step: int) -> bool:
    """Whether this step was the student's last one."""
    over = selection.is_over(self.record, self.context.plan.plateau)
    return over or step >= self.intervals.steps

  def is_read(self, step: int) -> bool:
    """Whether the metrics of this step are looked at."""
    return self.skips or self.intervals.is_logged(step)

  def show(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Enters the metrics of a finished step.

    Raises:
      Diverged: they are not finite, or all of many steps were skipped.
    """
    if self.skips:
      self.record.skipped += self.counted.enter(step, metrics)
      metrics = {**metrics, SKIPPED: self.record.skipped}
    if self.intervals.is_logged(step):
      self.display.training(step, metrics)

  def check(self, step: int, state: State) -> None:
    """Raises Diverged where the student is not finite any more."""
    if not _is_sound(state):
      raise Diverged(f"a weight is not finite after step {step}", step)

  def evaluate(self, step: int, logits, take) -> State | None:
    """Validates; returns a new state where the learning rate falls.

    Args:
      step: number of the steps done so far.
      logits: float32[n, classes] by split, from `selection.predict_splits`.
      take: () -> the student's state, which is copied only if needed.
    """
    context, plateau = self.context, self.context.plan.plateau
    found = selection.validate(
      context,
      logits,
      step,
      self.record,
      self.best,
      lambda offset: selection.snapshot(context, take(), offset),
    )
    self.display.accuracies(step, found)
    if plateau is None or not selection.falls(self.record, plateau):
      return None
    level = context.scale * plateau.factor**self.record.level
    best = self.best[context.plan.offset.mode]
    return selection.reload(take(), best, level)

  def save(self, step: int, state: State) -> None:
    """Writes a checkpoint, from which the same command resumes."""
    save(self.run, Standing(step, state, self.best, self.record))

  def end(self, step: int, state: State) -> Standing:
    """Closes the display; returns where the student stands."""
    self.display.finish()
    self.record.steps = step
    return Standing(step, state, self.best, self.record)


Ended = Iterator[tuple[Trainable, Standing | Diverged]]


def train(
  runs: Sequence[Trainable],
  standings: Sequence[Standing],
  stop: Stop,
  arrange: Arrange = alone,
) -> Ended:
  """Trains runs that stand at one step, and yields each as it ends.

  Args:
    runs: ready for their next step.
    standings: one for each run, all of the same step.
    stop: ends training with a checkpoint.
    arrange: lays students out on the devices; called again when many ended.

  Yields:
    (run, where it stands at its end), or (run, Diverged) where its numbers are
    not finite any more.
  """
  step = standings[0].step
  students = [
    _Student(run, standing, bar=run is runs[0])
    for run, standing in zip(runs, standings, strict=True)
  ]
  timer = Timer()
  for student in tuple(students):
    if student.is_done(step):
      students.remove(student)
      yield student.run, student.end(step, student.state)
  while students:
    timer.records = [student.record for student in students]
    timer.skip()
    lanes = arrange(
      [student.context for student in students],
      [student.state for student in students],
    )
    step = yield from _drive(lanes, students, step, timer, stop)


def _drive(
  lanes: Lanes, students: list[_Student], step: int, timer: Timer, stop: Stop
):
  """Trains on these lanes while they hold; returns the step reached.

  A finished student is yielded and removed; its lane keeps running and is
  ignored.
  """
  places = {student: place for place, student in enumerate(students)}
  diverged: dict[_Student, Diverged] = {}

  def judge(student, method, *what):
    try:
      method(student, *what)
    except Diverged as error:
      error.rollbacks = student.record.rollbacks
      diverged[student] = error

  def show(step, metrics):
    for student in students:
      if student not in diverged and student.is_read(step):
        own = lanes.metrics_of(metrics, places[student])
        judge(student, _Student.show, step, own)
    if len(diverged) == len(students):
      raise next(iter(diverged.values()))

  def leave(student):
    students.remove(student)
    timer.records = [other.record for other in students]

  def is_read(step):
    return any(student.is_read(step) for student in students)

  state = lanes.state
  launcher = Launcher(lanes.launched, is_read, show, timer)
  while lanes.holds(len(students)):
    until = min(student.intervals.stop(step) for student in students)
    try:
      state, step = launcher.run(state, step, until, stop.now)
    except Diverged:
      step = until  # all students did: the state is not used again
    for student in students:
      if student not in diverged:
        own = lanes.take(state, places[student])
        judge(student, _Student.check, step, own)
    for student, error in diverged.items():
      leave(student)
      yield student.run, error
    diverged.clear()
    state, ended = _look(lanes, students, places, step, until, state)
    timer.evaluated()
    if stop.agreed():
      _leave_off(lanes, students, places, step, state)
      stop.end()
    for student in ended:
      leave(student)
      own = lanes.take(state, places[student])
      yield student.run, student.end(step, own)
      timer.skip()
  for student in students:
    student.state = lanes.take(state, places[student])
  return step


def _leave_off(
  lanes: Lanes, students: list[_Student], places, step: int, state: State
) -> None:
  """Checkpoints every student, at whatever step that is."""
  for student in students:
    if not step or not student.intervals.is_saved(step):  # or just written
      student.save(step, lanes.take(state, places[student]))


def _look(
  lanes: Lanes,
  students: list[_Student],
  places,
  step: int,
  until: int,
  state: State,
) -> tuple[State, list[_Student]]:
  """Evaluates and checkpoints the students that are due.

  Returns:
    The state, and the students that finished.
  """
  logits = None
  for student in students if step == until else ():
    place = places[student]
    if student.intervals.is_eval_step(step):
      logits = logits or lanes.predict(state)
      part = student.evaluate(
        step,
        logits[place],
        lambda place=place, state=state: lanes.take(state, place),
      )
      if part is not None:
        state = lanes.put(state, place, part)
    if student.intervals.is_saved(step):
      student.save(step, lanes.take(state, place))
  return state, [student for student in students if student.is_done(step)]
