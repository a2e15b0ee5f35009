"""Shared by the tests of mixup, mixup3 and cutmix."""

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from tests.helpers.arrays import draw, log_softmax

CLASSES = 4


def make_batch(group, rows=3, side=8) -> Batch:
  index = np.arange(rows * group, dtype=np.int32).reshape(rows, group)
  teacher = Outputs(3 * draw(rows, group, CLASSES, seed=1))
  images = draw(rows, group, side, side, 3)
  return Batch(index, images, index % CLASSES, teachers=(teacher,))


def terms(logits, batch, t=4.0):
  """Loops over images and members: labels, teacher and KD."""
  labels = teacher = kd = 0.0
  weights = np.asarray(batch.weights, np.float64)
  answers = np.asarray(batch.teachers[0].logits, np.float64)
  rows, group = weights.shape
  for i in range(rows):
    for g in range(group):
      share = weights[i, g] / rows
      log_q, log_p = log_softmax(logits[i, 0]), log_softmax(answers[i, g])
      labels -= share * log_q[batch.labels[i, g]]
      teacher -= share * (np.exp(log_p) @ log_q)
      soft_q = log_softmax(logits[i, 0] / t)
      soft_p = log_softmax(answers[i, g] / t)
      kd += share * t**2 * (np.exp(soft_p) @ (soft_p - soft_q))
  return {"cross_entropy": labels, "teacher": teacher, "kd": kd}


def check_loss(name, group):
  """Every weight has its term, and the published defaults are 1, 1 and 0."""
  logits = 3 * draw(3, 1, CLASSES, seed=7)
  for hyper, weights in (
    ({}, (1, 1, 0)),
    ({"weight": 0.0, "kd_weight": 1.0}, (1, 0, 1)),
    (
      {"cross_entropy_weight": 0.5, "weight": 2.0, "kd_weight": 3.0},
      (0.5, 2, 3),
    ),
  ):
    method = methods.make(name, **hyper)
    batch = method.prepare(jax.random.key(1), make_batch(group))
    value, (state, metrics) = method.loss(
      {}, {}, Outputs(logits), batch, None, 0
    )
    expected = terms(logits, batch)
    order = ("cross_entropy", "teacher", "kd")
    np.testing.assert_allclose(
      value,
      sum(w * expected[k] for w, k in zip(weights, order, strict=True)),
      rtol=1e-5,
    )
    for term, got in metrics.items():
      np.testing.assert_allclose(got, expected[term], rtol=1e-5)
    assert state == {}


def check_prepare(name, group):
  """One set of weights, that sums to 1, and answers as they were."""
  before = make_batch(group)
  after = jax.jit(methods.make(name).prepare)(jax.random.key(1), before)
  assert after.inputs.shape == (3, 1, 8, 8, 3)
  assert after.weights.shape == (3, group)
  assert after.weights.dtype == jnp.float32
  np.testing.assert_allclose(after.weights.sum(1), np.ones(3), rtol=1e-6)
  np.testing.assert_array_equal(after.weights, after.weights[:1].repeat(3, 0))
  for field in ("index", "labels"):
    np.testing.assert_array_equal(getattr(after, field), getattr(before, field))
  np.testing.assert_array_equal(
    after.teachers[0].logits, before.teachers[0].logits
  )
  return before, after


def check_sample(name, group):
  """Distinct images of the table, the padding never, every image in time."""
  method = methods.make(name, max_groups=300)
  task = Task(7, CLASSES, 5, 1, jnp.zeros(9, jnp.int32))
  init = jax.jit(lambda key: method.init(key, task, None, None))
  _, state = init(jax.random.key(0))
  sample = jax.jit(
    lambda step: method.sample(jax.random.key(0), step, task, state)
  )
  drawn = np.concatenate([sample(step) for step in range(4)])
  assert drawn.shape == (20, group) and drawn.dtype == np.int32
  assert set(drawn.ravel()) == set(range(7))
  assert all(len(set(row)) == group for row in drawn)


def check_hazards(name, group):
  """A class ruled out, equal logits, +-1e4, and a live teacher's one answer."""
  method = methods.make(name, kd_weight=1.0)
  plain = method.prepare(jax.random.key(1), make_batch(group))
  answers = plain.teachers[0].logits
  ruled_out = answers.copy()
  ruled_out[:, :, 1] = -np.inf
  for student, teacher in (
    (draw(3, 1, CLASSES), ruled_out),
    (answers[:, :1], answers),
    (1e4 * answers[:, :1], -1e4 * answers),
    (draw(3, 1, CLASSES), answers[:, :1]),
    (draw(3, 1, CLASSES).astype("f2"), answers.astype("f2")),
  ):
    batch = plain._replace(teachers=(Outputs(teacher),))

    def loss(student, teacher, batch=batch):
      batch = batch._replace(teachers=(Outputs(teacher),))
      return method.loss({}, {}, Outputs(student), batch, None, 0)[0]

    value, (own, other) = jax.jit(jax.value_and_grad(loss, (0, 1)))(
      student, teacher
    )
    assert np.isfinite(value) and np.isfinite(own).all()
    assert not np.any(other)
