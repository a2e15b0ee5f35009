"""Which weights are reported: hand-made accuracies, and hand-made logits."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax.data import Split, accuracy
from ckd_jax.run import selection
from ckd_jax.run.intervals import Plateau
from ckd_jax.run.record import Record, Score
from ckd_jax.run.selection import Snapshot
from ckd_jax.step import State


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
  record, _ = judge_all([1.0, 3.0, 2.0])
  record.devices, record.origin = "2 x cpu", {"images": "f00d"}
  notes = json.loads(json.dumps(record.to_json()))
  assert Record.from_json(notes) == record
  assert Record.from_json(notes).since_best == 1  # without it a plateau waits
  # What a checkpoint of an earlier version lacks, or has beside it.
  del notes["steps"], notes["origin"]
  assert Record.from_json(notes | {"more": 1}) == dataclasses.replace(
    record, origin={}
  )


LABELS = np.array([0, 1, 2, 0])
RIGHT = np.eye(3, dtype=np.float32)[LABELS]  # logits
LEAN = np.array([0, 9, 0], np.float32)  # an offset that hides every answer


def a_context(judged, mode="none"):
  """Three splits, one with labels; parameters are logits, by split."""
  return SimpleNamespace(
    predict=lambda params, model, split: params[split],
    inputs={name: name for name in ("train", "validation", "test")},
    splits={judged: Split(None, LABELS, LABELS, "")},
    judge=accuracy,
    target=np.zeros(3, np.float32),
    num_classes=3,
    plan=SimpleNamespace(offset=SimpleNamespace(mode=mode)),
  )


def a_state(**logits):
  state = State(None, {"student": logits}, {}, {}, {}, None)
  return state._replace(step=jnp.int32(0))


def test_the_offset_is_fitted_on_the_training_images():
  """Those of the validation split lean half as much."""
  kept = []
  state = a_state(train=RIGHT + 2 * LEAN, validation=RIGHT + LEAN)
  context, record = a_context("validation", "fit"), begin("none", "fit")
  logits = selection.predict_splits(context, state)
  found = selection.validate(context, logits, 7, record, {}, kept.append)
  offset, nothing = kept  # in the order of the modes' names
  np.testing.assert_allclose(offset, -(RIGHT + 2 * LEAN).mean(0), rtol=1e-6)
  assert not nothing.any()
  assert record.modes["fit"] == Score(val=75.0, step=7)
  assert record.modes["none"] == Score(val=25.0, step=7)
  assert found == {"val_accuracy": 75.0, "offset_none_val_accuracy": 25.0}


def test_the_best_and_the_last_weights_are_tested_apart_in_both_modes():
  leaning = RIGHT + LEAN
  last = a_state(train=leaning, validation=leaning, test=leaning)
  wrong = np.roll(RIGHT, 1, -1)
  best = {
    "none": Snapshot({"test": np.where(RIGHT[:, 2:], 0, RIGHT)}, {}, 0 * LEAN),
    "fit": Snapshot({"test": wrong - LEAN}, {}, LEAN),
  }
  record = begin("none", "fit")
  selection.test(a_context("test"), last, best, record)
  assert record.modes == {
    "none": Score(test=75.0, last_test=25.0),
    "fit": Score(test=0.0, last_test=100.0),
  }


def test_a_lower_rate_begins_with_the_best_student_and_its_statistics():
  def student(number):
    return jnp.full(2, number, jnp.float32)

  state = State(
    step=jnp.int32(9),
    params={"student": student(1.0), "method": student(2.0)},
    model=student(3.0),
    method=student(4.0),
    optimizer=student(5.0),
    level=jax.device_put(np.float32(1.0)),
  )
  best = Snapshot(student(6.0), student(7.0), student(8.0))
  after = selection.reload(state, best, 0.1)
  found = jax.tree.map(lambda leaf: float(leaf.mean()), after)
  assert found.params == {"student": 6.0, "method": 2.0}
  assert (found.model, found.method, found.optimizer) == (7.0, 4.0, 5.0)
  assert found.level == np.float32(0.1) and found.step == 9
