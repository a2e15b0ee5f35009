"""SP: the recorded values, the formula in float64, invariances, hazards."""

import jax
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import sp as file
from tests.helpers.arrays import draw
from tests.helpers.dtypes import every_dtype
from tests.helpers.relational import (
  batch_of,
  follows,
  no_gradient_reaches_the_teacher,
  stays_finite,
)

# Compiled as a whole: much faster than one operation after the other.
similarity_preserving = jax.jit(file.similarity_preserving)


def reference(student, teacher):
  def similarities(x):
    rows = np.asarray(x, np.float64).reshape(len(x), -1)
    table = np.array([[a @ b for b in rows] for a in rows])
    return table / np.maximum(np.linalg.norm(table, axis=1), 1e-12)[:, None]

  gap = similarities(student) - similarities(teacher)
  return np.sum(gap**2) / len(student) ** 2


def test_it_follows_the_public_implementation(golden):
  inputs = "student_0", "teacher_0"
  path = golden / "losses/sp.npz"
  follows(similarity_preserving, path, inputs, "grad_0")


@pytest.mark.parametrize(
  ("student", "teacher"),
  [((5, 7), (5, 3)), ((4, 2, 2, 3), (4, 4, 4, 5)), ((1, 3), (1, 3))],
)
def test_the_formula(student, teacher):
  student, teacher = draw(*student), draw(*teacher, seed=1)
  np.testing.assert_allclose(
    similarity_preserving(student, teacher),
    reference(student, teacher),
    rtol=1e-5,
    atol=1e-12,
  )


def test_a_zero_row_is_like_nobody():
  student, teacher = draw(5, 7), draw(5, 3, seed=1)
  student[2] = 0
  np.testing.assert_allclose(
    similarity_preserving(student, teacher),
    reference(student, teacher),
    rtol=1e-5,
  )


def test_turns_scale_and_order_change_nothing():
  student, teacher = draw(6, 4), draw(6, 5, seed=1)
  turn, _ = np.linalg.qr(draw(4, 4, seed=2))
  order = np.random.default_rng(3).permutation(6)
  np.testing.assert_allclose(
    similarity_preserving((7 * student @ turn)[order], teacher[order]),
    similarity_preserving(student, teacher),
    rtol=1e-4,
  )
  assert similarity_preserving(student, student) < 1e-12


@every_dtype
def test_hazards(dtype):
  stays_finite(similarity_preserving, dtype)


def test_no_gradient_reaches_the_teacher():
  no_gradient_reaches_the_teacher(
    similarity_preserving, draw(5, 7), draw(5, 3, seed=1)
  )


def test_the_method_compares_the_last_maps():
  student, batch = batch_of()
  method = methods.make("sp")
  value, (_, metrics) = jax.jit(method.loss)({}, {}, student, batch, None, 0)
  own = reference(*(x.maps[-1] for x in (student, batch.teachers[0])))
  assert method.needs == {"logits", "maps"}
  np.testing.assert_allclose(metrics["sp"], own, rtol=1e-5)
  np.testing.assert_allclose(
    value, 3000 * own + metrics["cross_entropy"], rtol=1e-5
  )
