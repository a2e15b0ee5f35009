"""Every image is answered once; the measures against counting by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from ckd_jax.data import ImageView
from ckd_jax.methods import Model, Outputs
from ckd_jax.step import evaluate

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def images(count):
  draw = np.random.default_rng(count)
  return draw.integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)


def mesh_of(devices):
  return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def linear(params, state, x, *, train, key=None):
  assert not train
  return Outputs(x.reshape(len(x), -1) @ params + state[None]), state


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(
  ("count", "batch_size"), [(23, 10), (24, 8), (3, 500), (1, 1), (13, 12)]
)
def test_every_image_is_answered_once_and_in_order(devices, count, batch_size):
  pixels, draw = images(count), np.random.default_rng(0)
  weight = draw.normal(size=(12, 7)).astype(np.float32)
  bias = draw.normal(size=7).astype(np.float32)
  placed = evaluate.place(pixels, mesh_of(devices), batch_size)
  for batch in placed.batches:
    assert batch.dtype == jnp.uint8 and len(batch) % devices == 0
    assert len(batch.sharding.device_set) == devices
    assert batch.shape == placed.batches[0].shape
  view = ImageView(pixels.shape[1:], MEAN, STD)
  forward = evaluate.make_forward(Model(None, linear), view)
  predict = evaluate.make_predict(forward)
  logits = predict(jnp.asarray(weight), jnp.asarray(bias), placed)
  flat = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).reshape(count, -1)
  assert isinstance(logits, np.ndarray) and logits.dtype == np.float32
  np.testing.assert_allclose(logits, flat @ weight + bias, rtol=1e-4, atol=1e-4)


def answers(count=200, classes=9):
  draw = np.random.default_rng(1)
  logits = draw.normal(size=(count, classes)).astype(np.float32)
  teacher = logits + draw.normal(size=(count, classes)).astype(np.float32)
  return logits, draw.integers(classes, size=count), Outputs(teacher)


def test_the_measures_are_what_counting_gives():
  logits, labels, teacher = answers()
  top1 = top5 = agreement = 0
  for row, label, other in zip(logits, labels, teacher.logits, strict=True):
    order = sorted(range(len(row)), key=lambda c: -row[c])
    top1 += order[0] == label
    top5 += label in order[:5]
    agreement += order[0] == max(range(len(other)), key=lambda c: other[c])
  measures = evaluate.measures(logits, labels, teacher)
  assert set(measures) == {"top1", "top5", "agreement", "calibration_error"}
  assert measures["top1"] == pytest.approx(top1 / 2)
  assert measures["top5"] == pytest.approx(top5 / 2)
  assert measures["agreement"] == pytest.approx(agreement / 2)
  assert "agreement" not in evaluate.measures(logits, labels)


@pytest.mark.parametrize("classes", [2, 5])
def test_five_answers_of_five_classes_are_always_right(classes):
  logits, labels, _ = answers(classes=classes)
  assert evaluate.measures(logits, labels)["top5"] == 100


def test_equal_logits_are_ranked_as_argmax_ranks_them():
  labels = np.arange(10)
  measures = evaluate.measures(np.zeros((10, 10), np.float32), labels)
  assert measures["top1"] == 10 and measures["top5"] == 50


def test_calibration_by_hand():
  # Two classes with probabilities p and 1 - p; 10 intervals.
  confident = np.array([0.95, 0.95, 0.95, 0.95, 0.65, 0.65, 0.55])
  logits = np.stack([np.log(confident), np.log1p(-confident)], axis=1)
  labels = np.array([0, 0, 0, 1, 0, 1, 1])
  # |0.75 - 0.95| of 4, |0.5 - 0.65| of 2, |0 - 0.55| of 1.
  expected = 100 * (4 * 0.2 + 2 * 0.15 + 1 * 0.55) / 7
  value = evaluate.calibration_error(logits, labels, bins=10)
  assert value == pytest.approx(expected)


def test_calibration_is_a_loop_over_intervals():
  logits, labels, _ = answers(count=500)
  logits = 2 * logits
  odds = np.exp(logits.astype(np.float64))
  confidence = (odds / odds.sum(-1, keepdims=True)).max(-1)
  hit = logits.argmax(-1) == labels
  expected = 0.0
  for low in np.arange(15) / 15:
    inside = (confidence > low) & (confidence <= low + 1 / 15)
    if inside.any():
      gap = abs(hit[inside].mean() - confidence[inside].mean())
      expected += 100 * inside.mean() * gap
  value = evaluate.calibration_error(logits, labels)
  assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("right", "expected"), [(True, 0.0), (False, 100.0)])
def test_calibration_of_certainty(right, expected):
  logits = np.array([[1e4, -1e4, 0.0]] * 4, np.float32)
  labels = np.zeros(4, int) if right else np.ones(4, int)
  assert evaluate.calibration_error(logits, labels) == pytest.approx(expected)


def test_a_student_without_answers_is_not_among_the_best_five():
  logits = np.full((10, 10), np.nan, np.float32)
  with np.errstate(invalid="ignore"):
    assert evaluate.measures(logits, np.arange(10))["top5"] == 0
