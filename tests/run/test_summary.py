"""The files of a run, and its summary."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import data, models, student, table
from ckd_jax.run import logger
from tests.helpers.runs import CNN, LINEAR_TEACHER, QUICK, run

TYPES = {
  "dataset": str,
  "student": str,
  "teacher": str,
  "method": str,
  "seed": int,
  "budget": int,
  "teacher_calls": int,
  "repeated_calls": int,
  "steps": int,
  "test_accuracy": float,
  "val_accuracy": float,
  "last_test_accuracy": float,
  "teacher_test_accuracy": float,
  "train_seconds": float,
  "images_per_second": float,
  "student_parameters": int,
  "params_sha256": str,
}


def test_a_run_directory_holds_what_is_promised(fitted):
  summary, workdir = fitted
  assert json.loads((workdir / "summary.json").read_text()) == summary
  for key, kind in TYPES.items():
    assert type(summary[key]) is kind, key
  for key in summary:
    if key.endswith("_accuracy"):
      assert 0 <= summary[key] <= 100, key
  # 359 images: a percentage is a multiple of 100 / 359, a fraction is not.
  hits = summary["test_accuracy"] * 359 / 100
  assert hits == pytest.approx(round(hits), abs=1e-6)
  assert summary["teacher_test_accuracy"] > 90
  assert summary["train_seconds"] > 0 and summary["images_per_second"] > 0
  assert summary["steps"] == 20
  assert set(summary["params_sha256"]) <= set("0123456789abcdef")
  names = {path.name for path in workdir.iterdir()}
  assert names >= {
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "curves.png",
    "table",
    "checkpoints",
    "student.safetensors",
  }
  assert (workdir / "table" / "table.json").exists()
  steps = [
    line["step"]
    for line in logger.read_metrics(workdir / "metrics.jsonl")
    if "loss" in line
  ]
  assert steps == list(range(1, 21))


def logits_of(workdir, images) -> np.ndarray:
  """From the student's file and its metadata, with nothing of the run."""
  params, state, metadata = student.load(workdir / "student.safetensors")
  model = models.load(metadata["model"], int(metadata["classes"]))
  mean, std = (np.float32(json.loads(metadata[k])) for k in ("mean", "std"))
  images = (np.float32(images) / 255 - mean) / std
  outputs, _ = model.apply(params, state, jnp.asarray(images), train=False)
  return np.asarray(outputs.logits)


def accuracy_of(workdir, split, rows) -> float:
  found = logits_of(workdir, split.inputs[rows]).argmax(-1)
  return 100 * np.mean(found == split.labels[rows])


def test_the_student_file_alone_gives_the_reported_accuracies(fitted, digits):
  summary, workdir = fitted
  params, state, metadata = student.load(workdir / "student.safetensors")
  assert student.params_sha256(params, state) == summary["params_sha256"]
  count = sum(x.size for x in jax.tree.leaves(params))
  assert count == summary["student_parameters"]
  assert json.loads(metadata["class_names"]) == list(digits.class_names)
  everything = np.arange(len(digits.test.labels))
  tested = accuracy_of(workdir, digits.test, everything)
  assert summary["test_accuracy"] == tested
  chosen = data.select(1438, budget=100, val_fraction=0.2, seed=0)
  held_out = accuracy_of(workdir, digits.train, chosen.validation)
  assert summary["val_accuracy"] == pytest.approx(held_out)


def test_the_folded_offset_aims_at_the_training_images(fitted, digits):
  """Their mean logits are the mean of the teacher's answers and the labels."""
  _, workdir = fitted
  rows = data.select(1438, budget=100, val_fraction=0.2, seed=0).train
  answers = table.read(workdir / "table").rows(digits.train.ids[rows]).values
  target = (answers + np.eye(10)[digits.train.labels[rows]]) / 2
  found = logits_of(workdir, digits.train.inputs[rows])
  np.testing.assert_allclose(found.mean(0), target.mean(0), atol=2e-3)


def test_accuracies_are_reported_with_and_without_the_offset(
  fitted, teacher_run, digits, tmp_path
):
  summary, _ = fitted
  both = summary["offset"]
  assert set(both) == {"none", "fit"}
  assert summary["test_accuracy"] == both["fit"]["test"]
  assert summary["val_accuracy"] == both["fit"]["val"]
  plain = run(
    tmp_path / "run",
    CNN,
    LINEAR_TEACHER,
    f"--config.teacher.path={teacher_run}",
    "--config.hyper.offset=none",
    arg=QUICK + "teacher.source=checkpoint",
  )
  # The offset changes which weights are reported, not how they are trained.
  assert plain["offset"] == both
  everything = np.arange(len(digits.test.labels))
  tested = accuracy_of(tmp_path / "run", digits.test, everything)
  assert tested == plain["test_accuracy"] == both["none"]["test"]
  assert both["none"]["test"] != both["fit"]["test"]
  assert plain["params_sha256"] != summary["params_sha256"]
