"""From one step at which the host must look to the next, without a pause."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from ckd_jax.step import State


class Rhythm(NamedTuple):
  """After how many steps a run is judged, saved and logged."""

  steps: int  # the last one
  judge: int
  save: int
  log: int

  def judged(self, step: int) -> bool:
    return step % self.judge == 0 or step == self.steps

  def saved(self, step: int) -> bool:
    return step % self.save == 0

  def stop(self, step: int) -> int:
    """The next step after which the run is judged or saved."""
    coming = [step - step % every + every for every in (self.judge, self.save)]
    return min(*coming, self.steps)

  def logged(self, step: int) -> bool:
    # A loss that is not a number must not reach a checkpoint.
    return step % self.log == 0 or self.judged(step) or self.saved(step)


def launch_length(left: int, longest: int) -> int:
  """Steps of the next launch, of the `left` ones before the host looks.

  Below `longest` a power of two: every length is a program of its own, and how
  many steps a simulated epoch has follows from the budget.
  """
  return longest if left >= longest else 1 << (left.bit_length() - 1)


class Watch:
  """What the time of a run goes into, entered into its record.

  Runs that go together have an equal share in it.
  """

  def __init__(self, *records: dict):
    self.records = list(records)
    self._began = time.perf_counter(), time.process_time()

  def _lap(self) -> float:
    wall, processor = self._began
    self._began = time.perf_counter(), time.process_time()
    self._enter("processor_seconds", self._began[1] - processor)
    return self._began[0] - wall

  def _enter(self, name: str, seconds: float) -> None:
    for record in self.records:
      record[name] += seconds / len(self.records)

  def skip(self) -> None:
    """What came since the last entry belongs to none of them."""
    self._began = time.perf_counter(), time.process_time()

  def trained(self, timed_steps: int) -> None:
    """Since the last entry: training, of which so many steps count as speed."""
    seconds = self._lap()
    self._enter("train_seconds", seconds)
    if timed_steps:
      self._enter("timed_seconds", seconds)
      for record in self.records:
        record["timed_steps"] += timed_steps

  def evaluated(self) -> None:
    """Since the last entry: validation and checkpoints."""
    self._enter("evaluation_seconds", self._lap())


class Launcher:
  """Launches steps; the numbers of a launch are read while the next one runs.

  Args:
    fit: the run; its `examples` or `feed`, `key` and `longest`.
    launch: (times) -> jitted (state, examples, key) -> (state, metrics).
    rhythm: says which steps are logged.
    show: (step, metrics) -> None, for those.
    watch: of the time.
  """

  def __init__(self, fit, launch: Callable, rhythm: Rhythm, show, watch: Watch):
    self._fit, self._launch, self._rhythm = fit, launch, rhythm
    self._show, self._watch = show, watch
    self._compiled: set[int] = set()
    self._feed: Iterator | None = None

  def run(self, state: State, step: int, stop: int) -> State:
    """The state after `stop` steps of which `step` are done, finished."""
    fit, pending, timed = self._fit, None, 0
    if fit.feed and not self._feed:
      self._feed = fit.feed(fit.key, state.method, step)
    while step < stop:
      times = launch_length(stop - step, fit.longest)
      compiles = times not in self._compiled
      if compiles and timed:  # what was measured so far is kept apart
        jax.block_until_ready(state.step)
        self._watch.trained(timed)
        timed = 0
      examples = next(self._feed) if self._feed else fit.examples
      state, metrics = self._launch(times)(state, examples, fit.key)
      if fit.one_at_a_time or compiles:
        jax.block_until_ready(state.step)
      if compiles:
        self._compiled.add(times)
        self._watch.trained(0)
      else:
        timed += times
      self._read(pending)
      pending = step, metrics
      step += times
    jax.block_until_ready(state.step)
    self._watch.trained(timed)
    self._read(pending)
    return state

  def _read(self, pending) -> None:
    if pending is None:
      return
    before, metrics = pending
    (times,) = {len(values) for values in metrics.values()}
    logged = [
      turn for turn in range(times) if self._rhythm.logged(before + turn + 1)
    ]
    if logged:
      metrics = jax.device_get(metrics)
    for turn in logged:
      values = {name: value[turn] for name, value in metrics.items()}
      self._show(before + turn + 1, values)
