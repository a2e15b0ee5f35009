"""NST: RepDistiller's numbers, the MMD by loops, hazards, the method's sum."""

import jax
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.nst import nst
from tests.helpers import map_cases as cases


def reference(student, teacher):
  """The MMD in the kernel's own feature space, where (a . b)^2 = <aa', bb'>."""

  def moment(x):
    rows = np.moveaxis(x, -1, 1).reshape(len(x), x.shape[-1], -1)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=2, keepdims=True), 1e-12)
    return np.einsum("ncp,ncq->npq", rows, rows) / x.shape[-1]

  student, teacher = map(moment, cases.reference_same_size(student, teacher))
  return ((student - teacher) ** 2).sum((1, 2))


def test_the_public_numbers(golden):
  cases.check_recorded(
    golden,
    "nst",
    lambda *x: [nst(*pair).mean() for pair in zip(*x, strict=True)],
  )


@pytest.mark.parametrize(("ours", "theirs"), [(4, 4), (7, 3), (3, 7), (1, 2)])
def test_the_formula(ours, theirs):
  student = cases.uniform(3, ours, ours, 5)
  teacher = cases.uniform(3, theirs, theirs, 2, seed=1)
  np.testing.assert_allclose(
    jax.jit(nst)(student, teacher),
    reference(student, teacher),
    rtol=1e-4,
    atol=1e-6,
  )


def test_only_the_set_of_channels_counts():
  student, teacher = (
    cases.uniform(3, 4, 4, 5),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  assert np.abs(nst(teacher, teacher)).max() < 1e-6
  np.testing.assert_allclose(nst(teacher[..., ::-1], teacher), 0, atol=1e-6)
  scales = np.array([1, -2, 50, 0.01, 3], "f4").reshape(1, 1, 1, 5)
  np.testing.assert_allclose(
    nst(scales * student, teacher), nst(student, teacher), rtol=1e-5
  )


def test_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  cases.check_hazards(nst, student, teacher)
  student[..., 0] = 0
  np.testing.assert_allclose(
    nst(student, teacher), reference(student, teacher), rtol=1e-5
  )


def test_the_method_sums_all_maps_but_the_stems():
  student = cases.outputs([(4, 4, 2), (4, 4, 3), (2, 2, 4)], 1)
  teacher = cases.outputs([(4, 4, 2), (2, 2, 5), (2, 2, 4)], 2)
  (value, metrics), (_, of_student, of_teacher) = cases.graded(
    methods.make("nst").loss, {}, {}, student, teacher
  )
  pairs = list(zip(student.maps, teacher.maps, strict=True))[1:]
  expected = sum(reference(s[:, 0], t[:, 0]).mean() for s, t in pairs)
  np.testing.assert_allclose(metrics["nst"], expected, rtol=1e-4)
  labels = cases.reference_cross_entropy(student)
  np.testing.assert_allclose(value, 50 * expected + labels, rtol=1e-4)
  assert cases.is_zero(of_student.maps) == (True, False, False)
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
