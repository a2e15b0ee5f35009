"""Runs steps between evaluations without blocking the device."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from ckd_jax.run.record import Record
from ckd_jax.step import Examples, State, Step


class Launched(Protocol):
  """The part of a run, or of several in one program, that a launcher uses.

  Attributes:
    examples: the table on the devices, read by every step.
    feed: the examples of each coming step, where the host streams; or None.
    key: the run's random key, the same for every step.
    longest: steps per launch, at most.
    one_at_a_time: whether a launch must end before the next one begins.
    launch: (times) -> a jitted `Step` of so many steps.
  """

  examples: Examples
  feed: Callable[[jax.Array, Any, int], Iterator[Examples]] | None
  key: jax.Array
  longest: int

  @property
  def one_at_a_time(self) -> bool: ...

  @property
  def launch(self) -> Callable[[int], Step]: ...


def launch_length(left: int, longest: int) -> int:
  """Number of steps in the next launch.

  Below `longest` a power of two: every length is compiled separately, and the
  length of a simulated epoch follows from the budget.

  Args:
    left: steps before the next evaluation or checkpoint.
    longest: steps per launch, at most.
  """
  return longest if left >= longest else 1 << (left.bit_length() - 1)


class Timer:
  """Measures training and evaluation, into the records of runs.

  Runs in one program share the time equally.

  Args:
    *records: of the runs; changed in place.
  """

  def __init__(self, *records: Record):
    self.records = list(records)
    self._began = time.perf_counter(), time.process_time()

  def _lap(self) -> float:
    wall, processor = self._began
    self._began = time.perf_counter(), time.process_time()
    share = (self._began[1] - processor) / max(len(self.records), 1)
    for record in self.records:
      record.processor_seconds += share
    return (self._began[0] - wall) / max(len(self.records), 1)

  def skip(self) -> None:
    """Drops the time since the last entry."""
    self._began = time.perf_counter(), time.process_time()

  def trained(self, timed_steps: int) -> None:
    """Adds the time since the last entry to training.

    Args:
      timed_steps: steps in this time that count for the speed; 0 where a
        program was compiled.
    """
    seconds = self._lap()
    for record in self.records:
      record.train_seconds += seconds
      if timed_steps:
        record.timed_seconds += seconds
        record.timed_steps += timed_steps

  def evaluated(self) -> None:
    """Adds the time since the last entry to validation and checkpoints."""
    seconds = self._lap()
    for record in self.records:
      record.evaluation_seconds += seconds


class Launcher:
  """Launches steps; reads the metrics of a launch while the next one runs.

  Args:
    run: the programs, and the arrays that they read.
    is_logged: step -> whether its metrics are shown.
    show: called with (step, metrics) for those, each metric a NumPy number, or
      an array of one number per student.
    timer: adds the time of launches to the runs' records.
  """

  def __init__(
    self,
    run: Launched,
    is_logged: Callable[[int], bool],
    show: Callable[[int, Mapping[str, Any]], None],
    timer: Timer,
  ):
    self._run, self._is_logged = run, is_logged
    self._show, self._timer = show, timer
    self._compiled: set[int] = set()
    self._feed: Iterator[Examples] | None = None

  def run(
    self,
    state: State,
    step: int,
    stop: int,
    is_over: Callable[[], bool] = lambda: False,
  ) -> tuple[State, int]:
    """Trains up to a step, and waits for it.

    Args:
      state: after `step` steps; donated.
      step: number of the steps done so far.
      stop: number of the steps to have done.
      is_over: asked before each launch; true makes it the end.

    Returns:
      The state, and the number of the steps done.
    """
    run, pending, timed = self._run, None, 0
    if run.feed and not self._feed:
      self._feed = run.feed(run.key, state.method, step)
    while step < stop and not is_over():
      times = launch_length(stop - step, run.longest)
      compiles = times not in self._compiled
      if compiles and timed:  # what was measured so far is kept apart
        jax.block_until_ready(state.step)
        self._timer.trained(timed)
        timed = 0
      examples = next(self._feed) if self._feed else run.examples
      state, metrics = run.launch(times)(state, examples, run.key)
      if run.one_at_a_time or compiles:
        jax.block_until_ready(state.step)
      if compiles:
        self._compiled.add(times)
        self._timer.trained(0)
      else:
        timed += times
      self._read(pending)
      pending = step, metrics
      step += times
    jax.block_until_ready(state.step)
    self._timer.trained(timed)
    self._read(pending)
    return state, step

  def _read(self, pending) -> None:
    if pending is None:
      return
    before, metrics = pending
    (times,) = {len(values) for values in metrics.values()}
    logged = [
      turn for turn in range(times) if self._is_logged(before + turn + 1)
    ]
    if logged:
      metrics = jax.device_get(metrics)
    for turn in logged:
      values = {name: value[turn] for name, value in metrics.items()}
      self._show(before + turn + 1, values)
