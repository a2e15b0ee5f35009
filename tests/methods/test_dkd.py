"""DKD: the recorded values, loops in float64, wide gaps, warm-up, hazards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Task
from ckd_jax.methods import dkd as file
from tests.helpers.arrays import draw, softmax
from tests.helpers.dtypes import every_dtype
from tests.helpers.relational import (
  batch_of,
  follows,
  no_gradient_reaches_the_teacher,
  stays_finite,
)

# Compiled as a whole: much faster than one operation after the other.
dkd = jax.jit(file.dkd)


def kl(p, q):
  return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def reference(student, teacher, labels, alpha=1.0, beta=8.0, t=4.0):
  rows = []
  for s, z, label in zip(student / t, teacher / t, labels, strict=True):
    q, p = softmax(s)[label], softmax(z)[label]
    target = kl([p, 1 - p], [q, 1 - q])
    others = kl(*(softmax(np.delete(x, label)) for x in (z, s)))
    rows.append(t**2 * (alpha * target + beta * others))
  return np.array(rows)


def drawn(n=6, classes=7, scale=3.0):
  labels = np.arange(n, dtype=np.int32) * 3 % classes
  student, teacher = (draw(n, classes, seed=s, scale=scale) for s in (0, 1))
  return student, teacher, labels


def test_it_follows_the_public_implementation(golden):
  inputs = "student_logits", "teacher_logits", "labels"
  path = golden / "losses/dkd.npz"
  follows(lambda *arguments: dkd(*arguments).mean(), path, inputs)


@pytest.mark.parametrize("hyper", [(1.0, 8.0, 4.0), (0.5, 2.0, 1.0)])
@pytest.mark.parametrize("size", [(6, 7), (1, 7), (4, 2), (1, 2)])
def test_the_formula(size, hyper):
  student, teacher, labels = drawn(*size)
  alpha, beta, temperature = hyper
  value = jax.jit(dkd)(
    student, teacher, labels, alpha=alpha, beta=beta, temperature=temperature
  )
  assert value.shape == size[:1] and value.dtype == jnp.float32
  exact = reference(
    *(x.astype("f8") for x in (student, teacher)), labels, *hyper
  )
  np.testing.assert_allclose(value, exact, rtol=2e-5)


def test_with_equal_weights_of_the_two_parts_it_is_kd():
  # KD = TCKD + (1 - p_label) NCKD, the decomposition that the paper is about.
  student, teacher, labels = drawn(5)
  rest = 1 - softmax(teacher / 4)[np.arange(5), labels]
  target = dkd(student, teacher, labels, beta=0.0)
  others = dkd(student, teacher, labels, alpha=0.0, beta=1.0)
  p, q = softmax(teacher / 4), softmax(student / 4)
  whole = [16 * kl(*rows) for rows in zip(p, q, strict=True)]
  np.testing.assert_allclose(target + rest * others, whole, rtol=1e-5)


@pytest.mark.parametrize("classes", [5, 2])
@every_dtype
def test_a_wide_gap_stays_exact(classes, dtype):
  # The public implementation takes the logarithm of a sum of probabilities.
  _, teacher, labels = drawn(4, classes)
  teacher = teacher.astype(dtype)
  both = jax.jit(jax.value_and_grad(lambda *x: dkd(*x, labels).sum()))
  for gap in (500.0, -500.0, 8192.0, -8192.0):  # exact in every dtype
    student = np.zeros((4, classes), dtype)
    student[np.arange(4), labels] = gap
    value, gradient = both(student, teacher)
    assert gradient.dtype == dtype
    assert np.isfinite(np.asarray(gradient, np.float32)).all()
    # The student is certain, so log q = -|gap| / T for the side that lost.
    exact = teacher.astype(np.float64)
    p = softmax(exact / 4)[np.arange(4), labels]
    lost = np.sum(1 - p if gap > 0 else p) * abs(gap) / 4
    others = np.sum(p - 1 if gap > 0 else p) * np.log(classes - 1)
    entropy = -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p))
    rest = reference(np.zeros((4, classes)), exact, labels, alpha=0.0).sum()
    np.testing.assert_allclose(
      value, 16 * (lost + others - entropy) + rest, rtol=1e-5
    )


def test_classes_ruled_out_keep_value_and_gradient():
  student, teacher, labels = drawn(4, 5)
  teacher[0, labels[0]] = -np.inf  # the label
  teacher[1, (labels[1] + 1) % 5] = -np.inf  # another class
  teacher[2] = np.where(np.arange(5) == labels[2], teacher[2], -np.inf)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda s: dkd(s, teacher, labels).sum())
  )(student)
  exact = reference(student[:2], teacher[:2], labels[:2]).sum()
  # Nothing is said about the others where all of them are ruled out.
  certain = -16 * np.log(softmax(student[2] / 4)[labels[2]])
  exact += certain + reference(student[3:], teacher[3:], labels[3:]).sum()
  np.testing.assert_allclose(value, exact, rtol=1e-5)
  assert np.isfinite(gradient).all()
  assert (np.abs(gradient).max(axis=1) > 0).all()


def test_zero_at_the_teacher_and_blind_to_an_offset_per_image():
  student, teacher, labels = drawn()
  assert np.abs(dkd(teacher, teacher, labels)).max() == 0
  shift = draw(6, 1, seed=2).repeat(7, axis=1)
  np.testing.assert_allclose(
    dkd(student + shift, teacher, labels),
    dkd(student, teacher, labels),
    rtol=1e-4,
  )


def test_the_label_stays_out_where_all_others_are_far_below_minus_1000():
  # The public implementation lowers the label by 1000 to leave it out.
  student, teacher, labels = drawn()
  student = np.round(8 * student) / 8  # exact with and without the offset
  np.testing.assert_allclose(
    dkd(student - 8192, teacher - 8192, labels),
    dkd(student, teacher, labels),
    rtol=1e-2,
  )


@every_dtype
def test_hazards(dtype):
  def loss(student, teacher):
    return jnp.sum(dkd(student, teacher, jnp.arange(len(student)) % 5))

  stays_finite(loss, dtype)


def test_no_gradient_reaches_the_teacher():
  student, teacher, labels = drawn()
  no_gradient_reaches_the_teacher(
    lambda *x: dkd(*x, labels).sum(), student, teacher
  )


@pytest.mark.parametrize(
  ("warmup_epochs", "step", "factor"),
  [(20, 2, 0.05), (20, 3, 0.1), (20, 56, 0.95), (20, 10**6, 1), (0, 0, 1)],
)
def test_the_weight_grows_over_the_first_epochs(warmup_epochs, step, factor):
  student, batch = batch_of()
  method = methods.make("dkd", weight=0.5, warmup_epochs=warmup_epochs)
  task = Task(18, 5, 6, 3, batch.labels[:, 0])
  _, state = method.init(None, task, student, *batch.teachers)
  value, (after, metrics) = jax.jit(method.loss)(
    {}, state, student, batch, None, jnp.int32(step)
  )
  logits = (x.logits[:, 0] for x in (student, batch.teachers[0]))
  own = reference(*logits, batch.labels[:, 0]).mean()
  assert after == state
  np.testing.assert_allclose(metrics["dkd"], own, rtol=1e-5)
  total = 0.5 * factor * own + metrics["cross_entropy"]
  np.testing.assert_allclose(value, total, rtol=1e-5)


def test_a_table_smaller_than_a_batch_warms_up_too():
  student, batch = batch_of()
  method = methods.make("dkd", cross_entropy_weight=0.0, warmup_epochs=4)
  task = Task(4, 5, 6, 0, batch.labels[:, 0])
  _, state = method.init(None, task, student, *batch.teachers)
  for step, factor in ((0, 0.25), (1, 0.5), (9, 1)):
    value, (_, metrics) = method.loss({}, state, student, batch, None, step)
    np.testing.assert_allclose(value, factor * metrics["dkd"], rtol=1e-6)


def test_the_published_defaults():
  defaults = methods.defaults("dkd")
  names = "weight", "alpha", "beta", "temperature", "warmup_epochs"
  assert [defaults[name] for name in names] == [1.0, 1.0, 8.0, 4.0, 20]
