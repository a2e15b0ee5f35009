"""Steps in one launch are the same steps, logged at the same steps."""

import time

import numpy as np
import pytest

from ckd_jax.run import logger
from ckd_jax.run.intervals import Intervals
from ckd_jax.run.launcher import Timer, launch_length
from ckd_jax.run.record import Record
from tests.helpers.runs import LINEAR, from_table, run


def test_stops_are_where_the_run_is_judged_or_saved():
  intervals = Intervals(steps=23, evaluate=5, save=7, log=4)
  stops, step = [], 0
  while step < intervals.steps:
    step = intervals.stop(step)
    stops.append(step)
  assert stops == [5, 7, 10, 14, 15, 20, 21, 23]
  logged = [step for step in range(1, 24) if intervals.is_logged(step)]
  assert logged == [4, 5, 7, 8, 10, 12, 14, 15, 16, 20, 21, 23]


def test_every_budget_is_trained_by_a_few_programs():
  lengths = set()
  for epoch in range(1, 100):
    intervals, step = Intervals(steps=1000, evaluate=epoch, save=128, log=50), 0
    while step < intervals.steps:
      stop = intervals.stop(step)
      while step < stop:
        lengths.add(launch_length(stop - step, 32))
        step += launch_length(stop - step, 32)
      assert step == stop
  assert lengths == {1, 2, 4, 8, 16, 32}
  assert launch_length(100, 10) == 10 and launch_length(9, 10) == 8


@pytest.mark.parametrize("times", [3, pytest.param(64, marks=pytest.mark.slow)])
def test_many_steps_a_launch_make_the_same_run(times, paid, tmp_path):
  folders = tmp_path / "one", tmp_path / "many"
  for folder, count in zip(folders, (1, times), strict=True):
    flags, arg = from_table(
      paid, LINEAR, f"--config.steps_per_launch={count}", method="ckd"
    )
    run(folder, *flags, arg=arg + ",log_every=3,checkpoint_every=7")
  one, many = (logger.read_metrics(path / "metrics.jsonl") for path in folders)
  assert [line["step"] for line in one] == [line["step"] for line in many]
  for single, launched in zip(one, many, strict=True):
    assert single.keys() == launched.keys()
    for name, value in single.items():
      np.testing.assert_allclose(launched[name], value, rtol=1e-4, atol=1e-5)


def test_the_timer_enters_every_second_once(monkeypatch):
  now = 100.0
  monkeypatch.setattr(time, "perf_counter", lambda: now)
  monkeypatch.setattr(time, "process_time", lambda: 2 * now)
  records = [Record({}), Record({})]
  timer = Timer(*records)
  now = 104.0
  timer.trained(0)  # a compilation
  now = 106.0
  timer.trained(5)
  now = 116.0
  timer.evaluated()
  now = 200.0
  timer.skip()
  now = 201.0
  timer.evaluated()
  for record in records:  # each has half of it
    assert record == Record(
      {},
      train_seconds=3.0,
      evaluation_seconds=5.5,
      processor_seconds=17.0,
      timed_seconds=1.0,
      timed_steps=5,
    )
