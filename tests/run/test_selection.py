"""Hand-made sequences of validation accuracies."""

import json

import pytest

from ckd_jax.run import selection
from ckd_jax.run.intervals import Plateau
from ckd_jax.run.record import Record, Score


def begin(*modes):
  return Record({mode: Score() for mode in modes})


def judge_all(accuracies, mode="none", record=None):
  record = record or begin("none")
  improved = [
    selection.judge(record, step, {mode: value}, mode)
    for step, value in enumerate(accuracies, 1)
  ]
  return record, [bool(names) for names in improved]


def test_the_first_of_the_best_is_kept():
  record, improved = judge_all([10.0, 30.0, 30.0, 20.0])
  assert improved == [True, True, False, False]
  assert record.modes["none"].val == 30.0
  assert record.modes["none"].step == 2
  assert record.since_best == 2


def test_without_validation_the_newest_is_the_best():
  record, improved = judge_all([None, None, None])
  assert improved == [True] * 3
  assert record.modes["none"] == Score(step=3)


def test_an_accuracy_of_zero_is_an_accuracy():
  record, improved = judge_all([0.0, 0.0])
  assert improved == [True, False]
  assert record.modes["none"].step == 1


@pytest.mark.parametrize("primary", ["none", "fit"])
def test_modes_are_judged_apart_and_one_counts(primary):
  record = begin("none", "fit")
  sequence = [(10.0, 50.0), (20.0, 40.0), (15.0, 60.0), (15.0, 60.0)]
  found = [
    selection.judge(record, step, {"none": none, "fit": fit}, primary)
    for step, (none, fit) in enumerate(sequence, 1)
  ]
  assert found == [{"none", "fit"}, {"none"}, {"fit"}, set()]
  assert record.modes["none"].step == 2
  assert record.modes["fit"].step == 3
  assert record.since_best == {"none": 2, "fit": 1}[primary]


def test_a_plateau_lowers_the_level_and_the_bar_stays():
  record = begin("none")
  events = []
  # Best at step 1; two bad evaluations end a level; 50.0 is not above the bar.
  for step, value in enumerate([50.0, 40.0, 45.0, 50.0, 49.0, 51.0, 1.0, 2.0]):
    selection.judge(record, step, {"none": value}, "none")
    level = record.level
    falls = selection.falls(record, Plateau(patience=2, levels=3, factor=0.1))
    events.append(record.level > level)
    # The last level ends the run: it does not go on from its best weights.
    assert falls == (events[-1] and record.level < 3)
  assert events == [False, False, True, False, True, False, False, True]
  assert record.level == 3
  assert record.since_best == 0
  assert record.modes["none"].val == 51.0


def test_a_record_is_plain_json():
  record, _ = judge_all([1.0, 2.0])
  notes = json.loads(json.dumps(record.to_json()))
  assert Record.from_json(notes) == record
  # What a checkpoint of an earlier version lacks, or has beside it.
  del notes["steps"], notes["origin"]
  assert Record.from_json(notes | {"more": 1}) == record
