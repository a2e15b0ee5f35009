"""AT: RepDistiller's numbers, the formula, pooling, hazards, the method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.at import attention_transfer
from tests.helpers import map_cases as cases


def reference(student, teacher, power=2):
  student, teacher = cases.reference_same_size(student, teacher)
  gap = cases.reference_attention(student, power) - cases.reference_attention(
    teacher, power
  )
  return (gap**2).mean(1)


def test_the_public_numbers(golden):
  cases.check_recorded(
    golden,
    "at",
    lambda *x: [
      attention_transfer(*pair).mean() for pair in zip(*x, strict=True)
    ],
  )


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_the_formula(power):
  student, teacher = (
    cases.uniform(3, 4, 4, 5),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  value = jax.jit(lambda *x: attention_transfer(*x, power=power))
  np.testing.assert_allclose(
    value(student, teacher), reference(student, teacher, power), rtol=1e-4
  )


@pytest.mark.parametrize(("ours", "theirs"), [(7, 3), (3, 7), (4, 1), (5, 4)])
def test_the_larger_map_is_averaged_down(ours, theirs):
  student = cases.uniform(2, ours, ours, 3)
  teacher = cases.uniform(2, theirs, theirs, 3, seed=1)
  np.testing.assert_allclose(
    jax.jit(attention_transfer)(student, teacher),
    reference(student, teacher),
    rtol=1e-4,
    atol=1e-9,
  )


def test_it_is_zero_at_the_teacher_and_blind_to_scale():
  student, teacher = (
    cases.uniform(3, 4, 4, 5),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  assert not attention_transfer(teacher, teacher).any()
  np.testing.assert_allclose(
    attention_transfer(50 * student, 0.02 * teacher),
    attention_transfer(student, teacher),
    rtol=1e-4,
  )


def test_large_powers_do_not_overflow():
  student, teacher = (
    cases.uniform(2, 3, 3, 2),
    cases.uniform(2, 3, 3, 2, seed=1),
  )
  np.testing.assert_allclose(
    attention_transfer(jnp.float32(1e9) * student, teacher, power=4),
    reference(student, teacher, 4),
    rtol=1e-4,
  )


def test_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  cases.check_hazards(attention_transfer, student, teacher)
  dead = jnp.zeros((2, 4, 4, 2))
  np.testing.assert_allclose(
    attention_transfer(dead, teacher[:2]), np.full(2, 1 / 16), rtol=1e-5
  )


def test_the_method_sums_all_maps_but_the_stems():
  student = cases.outputs([(8, 8, 2), (4, 4, 3), (2, 2, 4)], 1)
  teacher = cases.outputs([(8, 8, 2), (8, 8, 5), (2, 2, 4)], 2)
  (value, metrics), (_, of_student, of_teacher) = cases.graded(
    methods.make("at").loss, {}, {}, student, teacher
  )
  pairs = list(zip(student.maps, teacher.maps, strict=True))[1:]
  expected = sum(reference(s[:, 0], t[:, 0]).mean() for s, t in pairs)
  np.testing.assert_allclose(metrics["at"], expected, rtol=1e-4)
  labels = cases.reference_cross_entropy(student)
  np.testing.assert_allclose(value, 1000 * expected + labels, rtol=1e-4)
  assert cases.is_zero(of_student.maps) == (True, False, False)
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
  assert "maps" in methods.make("at").needs


def test_networks_of_different_depth_are_refused_in_one_line():
  student = cases.outputs([(4, 4, 2), (2, 2, 3)], 1)
  teacher = cases.outputs([(4, 4, 2), (2, 2, 3), (1, 1, 3)], 2)
  with pytest.raises(ValueError, match="2 maps and the teacher 3") as error:
    cases.graded(methods.make("at").loss, {}, {}, student, teacher)
  assert "\n" not in str(error.value)
