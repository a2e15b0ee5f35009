"""PKT: the recorded values, the formula in float64, zero rows, hazards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import pkt as file
from tests.helpers.arrays import draw
from tests.helpers.dtypes import every_dtype
from tests.helpers.relational import (
  batch_of,
  follows,
  no_gradient_reaches_the_teacher,
  stays_finite,
)

# Compiled as a whole: much faster than one operation after the other.
pkt = jax.jit(file.pkt)


def reference(student, teacher):
  def probabilities(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    x = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-30)
    table = (np.array([[a @ b for b in x] for a in x]) + 1) / 2
    return table / table.sum(axis=1, keepdims=True)

  s, t = probabilities(student), probabilities(teacher)
  return np.mean(t * np.log((t + 1e-7) / (s + 1e-7)))


def test_it_follows_the_public_implementation(golden):
  inputs = "student_logits", "teacher_logits"
  follows(pkt, golden / "losses/pkt_logits.npz", inputs)


@pytest.mark.parametrize(
  ("student", "teacher"), [((6, 7), (6, 3)), ((4, 2, 2, 3), (4, 5))]
)
def test_the_formula(student, teacher):
  student, teacher = draw(*student), draw(*teacher, seed=1)
  np.testing.assert_allclose(
    pkt(student, teacher), reference(student, teacher), rtol=1e-5
  )


def test_a_zero_row_of_the_student_has_a_finite_gradient():
  # The published formula: 0.00184 or the like, with a gradient that is NaN.
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  student[2] = 0
  value, gradient = jax.jit(jax.value_and_grad(pkt))(student, teacher)
  np.testing.assert_allclose(value, reference(student, teacher), rtol=1e-5)
  assert np.isfinite(gradient).all()
  assert not gradient[2].any() and np.abs(gradient).max() > 0


def test_opposite_rows_are_never_less_than_unlike():
  angles = jnp.linspace(0.1, 3.0, 40)
  rows = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
  student = jnp.concatenate([rows, -3 * rows])
  value, gradient = jax.jit(jax.value_and_grad(pkt))(student, draw(80, 4))
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_accelerators_are_told_not_to_round_the_cosines():
  program = str(jax.make_jaxpr(jax.grad(file.pkt))(draw(6, 5), draw(6, 5)))
  assert program.count("dot_general[") == program.count("HIGHEST") // 2 > 2


def test_turns_scale_and_order_change_nothing():
  student, teacher = draw(6, 4), draw(6, 5, seed=1)
  turn, _ = np.linalg.qr(draw(4, 4, seed=2))
  order = np.random.default_rng(3).permutation(6)
  np.testing.assert_allclose(
    pkt((7 * student @ turn)[order], teacher[order]),
    pkt(student, teacher),
    rtol=1e-4,
  )
  np.testing.assert_allclose(pkt(student, student), 0, atol=1e-8)
  assert pkt(student[:1], teacher[:1]) == 0


@every_dtype
def test_hazards(dtype):
  stays_finite(pkt, dtype)


def test_no_gradient_reaches_the_teacher():
  no_gradient_reaches_the_teacher(pkt, draw(6, 7), draw(6, 3, seed=1))


def test_the_method_compares_embeddings():
  student, batch = batch_of()
  method = methods.make("pkt")
  value, (_, metrics) = jax.jit(method.loss)({}, {}, student, batch, None, 0)
  own = reference(*(x.embedding[:, 0] for x in (student, batch.teachers[0])))
  assert "embedding" in method.needs
  np.testing.assert_allclose(metrics["pkt"], own, rtol=1e-5)
  np.testing.assert_allclose(
    value, 30000 * own + metrics["cross_entropy"], rtol=1e-5
  )
