"""AB: RepDistiller's numbers, the four cases, hazards, both stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.ab import activation_boundary
from tests.helpers import map_cases as cases


def reference(student, teacher, margin=1.0):
  """By cases, as published, inclusive and exclusive bounds alike."""
  student, teacher = np.float64(student), np.float64(teacher)
  value = np.zeros_like(student)
  off = (student > -margin) & (teacher <= 0)
  on = (student <= margin) & (teacher > 0)
  value[off] = (student[off] + margin) ** 2
  value[on] = (student[on] - margin) ** 2
  return value.sum((1, 2, 3))


def test_the_public_numbers(golden):
  def weighted(students, teachers):
    return [
      0.003 * weight * activation_boundary(*pair).mean()
      for weight, *pair in zip(
        (1 / 4, 1 / 2, 1), students, teachers, strict=True
      )
    ]

  cases.check_recorded(golden, "ab", weighted)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 2.0])
def test_the_formula(margin):
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  student[0, 0, :, 0] = [margin, -margin, 0, 0]
  teacher[0, 0, :, 0] = [0, 0, 1, -1]
  value = jax.jit(lambda *x: activation_boundary(*x, margin=margin))
  np.testing.assert_allclose(
    value(student, teacher), reference(student, teacher, margin), rtol=1e-5
  )


def test_beyond_the_margin_there_is_neither_loss_nor_gradient():
  teacher = cases.uniform(3, 4, 4, 2)
  student = np.where(teacher > 0, 1.5, -1.5).astype("f4")
  assert not activation_boundary(student, 1e-3 * teacher).any()
  gradient = jax.jit(jax.grad(lambda s: activation_boundary(s, teacher).sum()))
  assert not gradient(student).any()
  assert (gradient(-student) * -student > 0).all()


def test_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  cases.check_hazards(activation_boundary, student, teacher)
  with pytest.raises(AssertionError, match="shape"):
    activation_boundary(student[:, :1, :1], teacher)


def test_the_trunk_learns_first_and_the_labels_then():
  field = "preactivations"
  student = cases.outputs([(4, 4, 2), (4, 4, 3), (2, 2, 4)], 1, field)
  teacher = cases.outputs([(4, 4, 2), (4, 4, 3), (4, 4, 5)], 2, field)
  method = methods.make("ab")
  params, state = cases.begin(method, student, teacher)
  assert list(params) == ["map2"], "equal shapes need no connector"
  (stage,) = method.stages
  assert (stage.epochs, stage.learning_rate) == (30, 0.05)
  assert stage.trains_student and field in method.needs
  (value, metrics), (heads, of_student, of_teacher) = cases.graded(
    stage.loss, params, state, student, teacher
  )
  (_, s1, s2), (_, t1, t2) = (
    [x[:, 0] for x in side.preactivations] for side in (student, teacher)
  )
  s2 = cases.reference_regress(params["map2"], s2, t2.shape[1:])
  assert (s2 < 0).any(), "no ReLU in a connector"
  expected = 0.003 * (reference(s1, t1).mean() / 2 + reference(s2, t2).mean())
  np.testing.assert_allclose([value, metrics["ab"]], expected, rtol=1e-4)
  assert cases.reaches_all(heads)
  assert cases.is_zero(of_student.preactivations) == (True, False, False)
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
  params, state = stage.finish(params, state)
  assert params == state == {}
  (value, _), (_, of_student, _) = cases.graded(
    method.loss, params, state, student, teacher
  )
  np.testing.assert_allclose(
    value, cases.reference_cross_entropy(student), rtol=1e-5
  )
  assert all(cases.is_zero(of_student.preactivations))


def test_a_weight_scales_the_first_stage():
  shapes = [(2, 2, 2), (2, 2, 2)]
  student = cases.outputs(shapes, 1, "preactivations")
  teacher = cases.outputs(shapes, 2, "preactivations")
  values = [
    cases.graded(
      methods.make("ab", weight=weight).stages[0].loss, {}, {}, student, teacher
    )[0][0]
    for weight in (1.0, 5.0)
  ]
  np.testing.assert_allclose(5 * values[0], values[1], rtol=1e-6)
  assert jnp.isfinite(values[0])
