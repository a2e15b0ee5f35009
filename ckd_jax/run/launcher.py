"""Runs steps between evaluations without blocking the device."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from ckd_jax.run.record import Record
from ckd_jax.step import Examples, State, Step


class Launched(Protocol):
  """What a launcher uses of a run, or of several that go together.

  Attributes:
    examples: of every step, where they lie on the device.
    feed: the examples of each coming step, where the host streams; or None.
    key: of all steps.
    longest: steps in a launch, at most.
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
  """Steps of the next launch, of the `left` ones before the host looks.

  Below `longest` a power of two: every length is a program of its own, and how
  many steps a simulated epoch has follows from the budget.
  """
  return longest if left >= longest else 1 << (left.bit_length() - 1)


class Timer:
  """Enters what the time of a run goes into, in its record.

  Runs that go together have an equal share in it.
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
    """Leaves out what came since the last entry."""
    self._began = time.perf_counter(), time.process_time()

  def trained(self, timed_steps: int) -> None:
    """Enters training; `timed_steps` of it count as speed."""
    seconds = self._lap()
    for record in self.records:
      record.train_seconds += seconds
      if timed_steps:
        record.timed_seconds += seconds
        record.timed_steps += timed_steps

  def evaluated(self) -> None:
    """Enters validation and checkpoints."""
    seconds = self._lap()
    for record in self.records:
      record.evaluation_seconds += seconds


class Launcher:
  """Launches steps; reads the metrics of a launch while the next one runs.

  Args:
    run: what is launched, and what it is fed with.
    is_logged: step -> whether its metrics are shown.
    show: called with (step, metrics) for those, each metric a NumPy number, or
      an array of one number per student.
    timer: of the time.
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

  def run(self, state: State, step: int, stop: int) -> State:
    """The state after `stop` steps of which `step` are done, finished."""
    run, pending, timed = self._run, None, 0
    if run.feed and not self._feed:
      self._feed = run.feed(run.key, state.method, step)
    while step < stop:
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
    return state

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
