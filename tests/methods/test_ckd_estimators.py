"""CKD as a method: its three estimators, its terms, and its offset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs
from tests.helpers.arrays import softmax
from tests.helpers.groups import SIZES, a_batch, draw, reference, run


def test_groups_of_a_batch_are_an_unbiased_estimate_of_all():
  student, batch = a_batch(groups=9, size=1)
  sizes = {"positives": 2, "negatives": 1}
  drawn = methods.make(
    "ckd", estimator="batch_groups", groups_per_batch=64, **sizes
  )
  closed = methods.make("ckd", estimator="all", **sizes)
  keys = jax.random.split(jax.random.key(0), 400)

  @jax.jit
  @jax.vmap
  def estimate(key):
    return drawn.loss({}, {}, Outputs(student), batch, key, 0)[1][1]

  _, exact = run(closed, student, batch)
  for name, values in estimate(keys).items():
    error = np.std(values, ddof=1) / np.sqrt(len(keys))
    assert abs(np.mean(values) - exact[name]) < 4 * error, name
    assert error < 0.02 * exact[name], name


@pytest.mark.parametrize(("p", "n"), SIZES)
def test_the_published_estimator_is_the_mean_over_its_groups(p, n):
  student, batch = a_batch(size=p + n)
  method = methods.make(
    "ckd",
    positives=p,
    negatives=n,
    teacher_weight=0.5,
    label_weight=2.0,
    cross_entropy_weight=0.25,
    kd_weight=3.0,
    temperature=2.0,
  )
  value, metrics = run(method, student, batch)
  s, t = np.asarray(student), np.asarray(batch.teachers[0].logits)
  y = np.eye(7)[batch.labels]

  def compared(target):
    return np.mean(
      [
        reference(a[:p], a[p:], b[:p], b[p:])
        for a, b in zip(s, target, strict=True)
      ]
    )

  flat, labels = s.reshape(-1, 7).astype("f8"), batch.labels.reshape(-1)
  probabilities = [softmax(row)[c] for row, c in zip(flat, labels, strict=True)]
  rows = zip(flat, t.reshape(-1, 7).astype("f8"), strict=True)
  expected = {
    "teacher": compared(t),
    "label": compared(y),
    "cross_entropy": -np.mean(np.log(probabilities)),
    "kd": np.mean(
      [
        4 * np.sum(softmax(b / 2) * np.log(softmax(b / 2) / softmax(a / 2)))
        for a, b in rows
      ]
    ),
  }
  assert method.passes == (p, n)
  assert set(metrics) == set(expected)
  for name, term in expected.items():
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
  weights = {"teacher": 0.5, "label": 2.0, "cross_entropy": 0.25, "kd": 3.0}
  total = sum(weights[name] * term for name, term in expected.items())
  np.testing.assert_allclose(value, total, rtol=1e-5)


@pytest.mark.parametrize("mean_weight", [0.0, 0.1, 1.0])
def test_all_has_the_weight_of_the_mean_in_both_terms(mean_weight):
  student, batch = a_batch(groups=9, size=1)
  method = methods.make(
    "ckd", estimator="all", positives=2, mean_weight=mean_weight
  )
  _, metrics = run(method, student, batch)
  targets = {
    "teacher": batch.teachers[0].logits,
    "label": np.eye(7, dtype="f4")[batch.labels],
  }
  for name, target in targets.items():
    wanted = losses.ckd_all(
      student[:, 0], target[:, 0], positives=2, mean_weight=mean_weight
    )
    np.testing.assert_allclose(metrics[name], wanted, rtol=1e-5, err_msg=name)


def test_one_lam_per_batch_serves_both_terms():
  # Against a silent student the terms are lam^2 for this teacher and
  # (lam^2 + (1 - lam)^2) / classes for two different labels.
  teacher = np.stack([np.ones((5, 4)), np.zeros((5, 4))], axis=1)
  labels = np.tile(np.array([[0, 1]], np.int32), (5, 1))
  batch = Batch(labels, None, labels, teachers=(Outputs(teacher),))
  method = methods.make("ckd", mix="lam", beta=4.0)
  keys = jax.random.split(jax.random.key(0), 2000)

  @jax.jit
  @jax.vmap
  def terms(key):
    silent = Outputs(jnp.zeros((5, 2, 4)))
    return method.loss({}, {}, silent, batch, key, 0)[1][1]

  metrics = terms(keys)
  lam = np.sqrt(metrics["teacher"])
  label = (lam**2 + (1 - lam) ** 2) / 4
  np.testing.assert_allclose(metrics["label"], label, rtol=1e-4, atol=1e-6)
  # Beta(4, 4) has the variance 1/36; four standard errors of 2000 draws.
  assert abs(lam.mean() - 0.5) < 4 / np.sqrt(36 * 2000)
  assert abs(36 * lam.var() - 1) < 0.15


@pytest.mark.parametrize(
  "hyper",
  [
    {"divergence": "kl"},
    {"mix": "mean"},
    {"mix": "lam"},
    {"mean_weight": 0.5, "estimator": "all"},
    {"cross_entropy_weight": 1.0},
    {"kd_weight": 1.0},
    {"teacher_weight": 0.0, "label_weight": 0.0},
  ],
  ids=str,
)
def test_no_offset_where_the_loss_fixes_it(hyper):
  _, batch = a_batch()
  assert methods.make("ckd", **hyper).offset_target(batch) is None
  with pytest.raises(ValueError, match="offset='fit' needs a loss of"):
    methods.make("ckd", offset="fit", **hyper)


@pytest.mark.parametrize("estimator", ["groups", "batch_groups", "all"])
def test_the_fitted_offset_minimises_logit_matching(estimator):
  student, batch = a_batch(groups=9, size=1)
  weights = {"teacher_weight": 0.5, "label_weight": 2.0}
  method = methods.make("ckd", estimator=estimator, offset="fit", **weights)
  target = method.offset_target(batch)
  y, t = np.eye(7)[batch.labels], batch.teachers[0].logits
  np.testing.assert_allclose(target, (0.5 * t + 2 * y) / 2.5, rtol=1e-5)
  offset = (target - student).mean((0, 1))
  matching = methods.make("logit_mse", **weights)

  def matched(offset):
    return run(matching, student + offset[None, None], batch)[0]

  best, slope = jax.jit(jax.value_and_grad(matched))(offset)
  np.testing.assert_allclose(slope, np.zeros(7), atol=1e-5)
  for direction in draw(5, 7, seed=4, scale=0.3):
    assert matched(offset + direction) > best
  assert best < 0.9 * matched(jnp.zeros(7))


@pytest.mark.parametrize(
  ("hyper", "message"),
  [
    ({"mix": "product"}, "mix must be one of"),
    ({"divergence": "mae"}, "divergence must be one of"),
    ({"estimator": "some"}, "estimator must be one of"),
    ({"offset": "yes"}, "offset must be one of"),
    ({"positives": 0}, "positives must be 1 or more"),
    ({"temperature": 0.0}, "temperature must be above 0"),
    ({"beta": float("nan")}, "beta must be above 0"),
    ({"label_weight": -1.0}, "label_weight must be 0 or more"),
    ({"teacher_weight": float("inf")}, "teacher_weight must be 0 or more"),
    ({"estimator": "all", "divergence": "kl"}, "closed form for mse only"),
    ({"mean_weight": 1.0}, "mean_weight needs estimator='all'"),
    (
      {"mean_weight": 1.0, "estimator": "all", "mix": "mean"},
      "mean_weight needs estimator='all' and mix='difference'",
    ),
  ],
  ids=str,
)
def test_values_without_meaning_are_refused(hyper, message):
  with pytest.raises(ValueError, match=message):
    methods.make("ckd", **hyper)
