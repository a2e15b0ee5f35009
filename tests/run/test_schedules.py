"""The decisions on when a run ends, and which weights are its student."""

import json

import jax
import numpy as np
import pytest

from ckd_jax import config as configuration
from ckd_jax import student
from ckd_jax.errors import UserError
from ckd_jax.run import logger, train
from tests.helpers.paths import DIGITS
from tests.helpers.runs import CNN, LINEAR, QUICK, contents, from_table, run

slow = pytest.mark.slow


def test_a_plateau_reloads_the_best_and_ends(paid, tmp_path, monkeypatch):
  """Levels, reloads and the end, seen from the states that pass by."""
  from ckd_jax.run import selection

  seen = []
  reload = selection.reload

  def spy(state, best, level):
    after = reload(state, best, level)
    flat = [np.asarray(x) for x in jax.tree.leaves(after.params["student"])]
    kept = [np.asarray(x) for x in jax.tree.leaves(best.params)]
    assert all(map(np.array_equal, flat, kept))
    momentum = [
      [np.asarray(x) for x in jax.tree.leaves(s.optimizer)]
      for s in (state, after)
    ]
    assert all(map(np.array_equal, *momentum))
    assert any(np.any(x) for x in momentum[0])
    seen.append(float(after.level))
    return after

  monkeypatch.setattr(selection, "reload", spy)
  flags, arg = from_table(
    paid,
    LINEAR,
    "--config.schedule=plateau",
    "--config.schedule_hyper.patience=2",
    "--config.schedule_hyper.levels=3",
    "--config.optimizer.learning_rate=1",
    "--config.steps=5000",
  )
  summary = run(tmp_path / "run", *flags, arg=arg)
  np.testing.assert_allclose(seen, [0.1, 0.01], rtol=1e-5)
  lines = logger.read_metrics(tmp_path / "run" / "metrics.jsonl")
  val = [(x["step"], x["val_accuracy"]) for x in lines if "val_accuracy" in x]
  # A simulated epoch is 80 / 16 steps, whatever eval_every says.
  assert [number for number, _ in val] == list(
    range(5, summary["steps"] + 1, 5)
  )
  # By hand: the bar is the best so far, and 3 waits of 2 end the run.
  best, waited, level = -1.0, 0, 0
  for number, accuracy in val:
    waited = 0 if accuracy > best else waited + 1
    best = max(best, accuracy)
    if waited == 2:
      level, waited = level + 1, 0
    assert (level == 3) == (number == summary["steps"])
  assert summary["val_accuracy"] == best
  rates = {x["learning_rate"] for x in lines if "learning_rate" in x}
  np.testing.assert_allclose(sorted(rates), [0.01, 0.1, 1], rtol=1e-5)


def test_a_plateau_ends_at_its_last_epoch_too(paid, tmp_path):
  flags, arg = from_table(
    paid,
    LINEAR,
    "--config.schedule=plateau",
    "--config.schedule_hyper.max_epochs=3",
  )
  assert run(tmp_path, *flags, arg=arg)["steps"] == 15


def test_without_validation_the_last_weights_are_reported(paid, tmp_path):
  flags, arg = from_table(
    paid, LINEAR, "--config.val_fraction=0", "--config.budget=80"
  )
  with pytest.raises(UserError, match="no answer"):
    run(tmp_path / "other", *flags, arg=arg)  # other images than were paid for
  summary = run(
    tmp_path / "run",
    LINEAR,
    arg=QUICK + "method=supervised,teacher.source=none,val_fraction=0",
  )
  assert summary["val_accuracy"] is None
  assert summary["best_step"] == summary["steps"] == 20
  assert summary["test_accuracy"] == summary["last_test_accuracy"]
  assert summary["teacher_calls"] == 0 and summary["teacher"] == "none"
  text = (tmp_path / "run" / "summary.json").read_text()
  assert '"val_accuracy": null' in text


def test_a_teacher_is_trained_once_and_shared(tmp_path):
  arg = QUICK + "method=kd,teacher.source=train,teacher.steps=30,seed="
  shared = (
    LINEAR,
    "--config.teacher.name=tests.helpers.runs:linear",
    f"--config.teacher.path={tmp_path / 'teacher'}",
    f"--config.table.path={tmp_path / 'table'}",
  )
  first = run(tmp_path / "first", *shared, arg=arg + "1")
  before = contents(tmp_path / "teacher")
  # What a teacher's own schedule does not look at may differ.
  other = "--config.schedule_hyper.patience=7"
  second = run(tmp_path / "second", *shared, other, arg=arg + "2")
  assert contents(tmp_path / "teacher") == before
  assert first["teacher"] == second["teacher"]
  assert (first["paid_calls"], second["paid_calls"]) == (80, 0)
  teacher = json.loads((tmp_path / "teacher" / "summary.json").read_text())
  assert teacher["budget"] == 1438 and teacher["steps"] == 30
  assert first["teacher_test_accuracy"] == teacher["test_accuracy"]


@slow
def test_bfloat16_computes_and_float32_remembers(paid, tmp_path):
  flags, arg = from_table(paid, CNN, "--config.dtype=bfloat16", method="ckd")
  run(tmp_path, *flags, arg=arg)
  losses = [
    line["loss"]
    for line in logger.read_metrics(tmp_path / "metrics.jsonl")
    if "loss" in line
  ]
  assert np.isfinite(losses).all()
  params, state, _ = student.load(tmp_path / "student.safetensors")
  assert {x.dtype.name for x in jax.tree.leaves((params, state))} == {"float32"}


def test_a_loss_that_is_not_finite_is_one_line(paid, tmp_path):
  flags, arg = from_table(
    paid, LINEAR, "--config.optimizer.learning_rate=1e30", method="logit_mse"
  )
  with pytest.raises(UserError, match=r"loss.*step.*learning_rate"):
    run(tmp_path, *flags, arg=arg)


@pytest.mark.slow
def test_the_embedded_default_beats_its_labels(tmp_path):
  """configs/digits.py as it stands, and the same images with labels alone."""
  config, _ = configuration.from_flags([f"--config={DIGITS}"])
  summary = train.run(config, tmp_path / "taught")
  assert summary["teacher_calls"] == 320
  assert summary["test_accuracy"] > 95
  config, _ = configuration.from_flags([f"--config={DIGITS}:method=supervised"])
  alone = train.run(config, tmp_path / "alone")
  assert alone["teacher_calls"] == 0
  assert summary["test_accuracy"] > alone["test_accuracy"]
