"""FT: RepDistiller's numbers, the formula, hazards, both stages."""

import jax
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.ft import factor_transfer
from tests.helpers import map_cases as cases


def reference(student, teacher, power=2):
  student, teacher = cases.reference_same_size(student, teacher)
  gap = cases.reference_attention(student, power) - cases.reference_attention(
    teacher, power
  )
  return np.abs(gap).mean(1)


def test_the_public_numbers(golden):
  cases.check_recorded(
    golden,
    "ft_factor",
    lambda *x: [factor_transfer(*pair).mean() for pair in zip(*x, strict=True)],
  )


@pytest.mark.parametrize(
  ("power", "ours", "theirs"), [(1, 4, 4), (2, 7, 3), (4, 3, 4)]
)
def test_the_formula(power, ours, theirs):
  student = cases.uniform(3, ours, ours, 5)
  teacher = cases.uniform(3, theirs, theirs, 2, seed=1)
  value = jax.jit(lambda *x: factor_transfer(*x, power=power))
  np.testing.assert_allclose(
    value(student, teacher),
    reference(student, teacher, power),
    rtol=1e-4,
  )


def test_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  cases.check_hazards(factor_transfer, student, teacher)
  assert not factor_transfer(teacher, teacher).any()


SHAPES = [(4, 4, 2), (4, 4, 3)], [(4, 4, 2), (2, 2, 4)]


def leaky(x):
  return np.where(x > 0, x, 0.1 * x)


@pytest.mark.slow
def test_the_paraphraser_learns_alone_and_is_frozen_then():
  student, teacher = (cases.outputs(x, i) for i, x in enumerate(SHAPES))
  method = methods.make("ft")
  params, state = cases.begin(method, student, teacher)
  assert list(params) == ["paraphraser"] and list(state) == ["translator"]
  (stage,) = method.stages
  assert (stage.epochs, stage.learning_rate) == (30, 0.01)
  assert not stage.trains_student
  (value, metrics), (heads, of_student, of_teacher) = cases.graded(
    stage.loss, params, state, student, teacher
  )
  last = x = np.float64(teacher.maps[-1][:, 0])
  widths = []
  for layer in params["paraphraser"]["encoder"]:
    x = leaky(cases.reference_conv(layer, x, padding=1))
    widths.append(x.shape[-1])
  factor = x
  for layer in params["paraphraser"]["decoder"]:
    x = leaky(cases.reference_deconv(layer, x, padding=1))
    widths.append(x.shape[-1])
  assert widths == [4, 2, 2, 2, 4, 4]
  expected = np.square(x - last).mean()
  np.testing.assert_allclose(
    [value, metrics["reconstruction"]], expected, rtol=1e-5
  )
  assert cases.reaches_all(heads)
  untouched = cases.is_zero((of_student, of_teacher))
  assert all(jax.tree.leaves(untouched))

  params, state = stage.finish(params, state)
  assert list(params) == ["translator"] and list(state) == ["paraphraser"]
  (value, metrics), (heads, of_student, of_teacher) = cases.graded(
    method.loss, params, state, student, teacher
  )
  x = np.float64(student.maps[-1][:, 0])
  for layer in params["translator"]:
    x = leaky(
      cases.reference_norm(cases.reference_conv(layer["conv"], x, padding=1))
    )
  assert x.shape[-1] == factor.shape[-1]
  expected = reference(x, factor).mean()
  np.testing.assert_allclose(metrics["ft"], expected, rtol=1e-4)
  labels = cases.reference_cross_entropy(student)
  np.testing.assert_allclose(value, 200 * expected + labels, rtol=1e-4)
  assert cases.reaches_all(heads)
  assert cases.is_zero(of_student.maps) == (True, False)
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
