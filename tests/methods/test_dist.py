"""DIST: the recorded values, NumPy's correlation, constant rows, hazards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import dist as file
from tests.helpers.arrays import draw, softmax
from tests.helpers.dtypes import every_dtype
from tests.helpers.relational import (
  batch_of,
  follows,
  no_gradient_reaches_the_teacher,
  stays_finite,
)

# Compiled as a whole: much faster than one operation after the other.
dist = jax.jit(file.dist)


def reference(student, teacher, beta=1.0, gamma=1.0, t=4.0):
  def gap(a, b):
    rows = zip(a, b, strict=True)
    return 1 - np.mean([np.corrcoef(x, y)[0, 1] for x, y in rows])

  s, z = softmax(student / t), softmax(teacher / t)
  return t**2 * (beta * gap(s, z) + gamma * gap(s.T, z.T))


def test_it_follows_the_public_implementation(golden):
  inputs = "student_logits", "teacher_logits"
  follows(dist, golden / "losses/dist.npz", inputs)


@pytest.mark.parametrize("hyper", [(1.0, 1.0, 4.0), (0.3, 2.0, 1.0)])
@pytest.mark.parametrize("classes", [7, 2])
def test_the_formula(classes, hyper):
  student, teacher = draw(6, classes), draw(6, classes, seed=1)
  beta, gamma, temperature = hyper
  value = dist(
    student, teacher, beta=beta, gamma=gamma, temperature=temperature
  )
  np.testing.assert_allclose(
    value, reference(student, teacher, *hyper), rtol=1e-5
  )


def test_a_class_ruled_out_has_probability_zero():
  student, teacher = draw(6, 7), draw(6, 7, seed=1)
  teacher[0, 2] = teacher[3, 1] = -np.inf
  value, gradient = jax.jit(jax.value_and_grad(dist))(student, teacher)
  np.testing.assert_allclose(value, reference(student, teacher), rtol=1e-5)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_a_class_that_is_ruled_out_everywhere_correlates_with_nothing():
  student, teacher = draw(6, 7), draw(6, 7, seed=1)
  teacher[:, 2] = -np.inf
  value, gradient = jax.jit(jax.value_and_grad(dist))(student, teacher)
  with np.errstate(invalid="ignore"):
    s, z = softmax(student / 4), softmax(teacher / 4)
    columns = [np.corrcoef(*pair)[0, 1] for pair in zip(s.T, z.T, strict=True)]
  rows = [np.corrcoef(*pair)[0, 1] for pair in zip(s, z, strict=True)]
  columns = np.nan_to_num(columns)
  exact = 16 * (2 - np.mean(rows) - np.mean(columns))
  np.testing.assert_allclose(value, exact, rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_near_zero_at_the_teacher_and_blind_to_order():
  student, teacher = draw(6, 7), draw(6, 7, seed=1)
  np.testing.assert_allclose(dist(student, student), 0, atol=1e-3)
  order = np.random.default_rng(3).permutation(6)
  np.testing.assert_allclose(
    dist(student[order], teacher[order]), dist(student, teacher), rtol=1e-5
  )


def test_one_example_leaves_its_columns_without_correlation():
  student, teacher = draw(1, 7), draw(1, 7, seed=1)
  rows = [softmax(x[0] / 4) for x in (student, teacher)]
  exact = 16 * (1 - np.corrcoef(*rows)[0, 1]) + 16
  np.testing.assert_allclose(dist(student, teacher), exact, rtol=1e-5)


@pytest.mark.parametrize("classes", [10, 1000])
def test_a_constant_row_has_no_gradient_however_its_mean_is_rounded(classes):
  # 1e8 times the teacher's row otherwise, which float16 cannot hold.
  student = jnp.zeros((4, classes), jnp.float16)
  both = jax.jit(jax.value_and_grad(dist))
  value, gradient = both(student, draw(4, classes))
  assert np.isclose(value, 32) and not gradient.any()


@every_dtype
def test_hazards(dtype):
  stays_finite(dist, dtype)


def test_no_gradient_reaches_the_teacher():
  no_gradient_reaches_the_teacher(dist, draw(6, 7), draw(6, 7, seed=1))


def test_the_method_adds_labels_kd_and_twice_dist():
  student, batch = batch_of()
  method = methods.make("dist")
  value, (_, metrics) = jax.jit(method.loss)({}, {}, student, batch, None, 0)
  own = reference(*(x.logits[:, 0] for x in (student, batch.teachers[0])))
  np.testing.assert_allclose(metrics["dist"], own, rtol=1e-5)
  total = 2 * own + metrics["cross_entropy"] + metrics["kd"]
  np.testing.assert_allclose(value, total, rtol=1e-5)
