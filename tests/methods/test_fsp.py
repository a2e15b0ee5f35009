"""FSP: RepDistiller's numbers, the matrix by loops, hazards, both stages."""

import itertools

import jax
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.fsp import fsp
from tests.helpers import map_cases as cases


def reference(*maps):
  def matrix(bottom, top):
    bottom, top = cases.reference_same_size(bottom, top)
    g = np.zeros((len(top), bottom.shape[-1], top.shape[-1]))
    for i, j in np.ndindex(g.shape[1:]):
      g[:, i, j] = (bottom[..., i] * top[..., j]).mean((1, 2))
    return g

  return ((matrix(*maps[:2]) - matrix(*maps[2:])) ** 2).mean((1, 2))


def test_the_public_numbers(golden):
  def neighbours(*sides):
    pairs = zip(*map(itertools.pairwise, sides), strict=True)
    return [fsp(*ours, *theirs).mean() for ours, theirs in pairs]

  cases.check_recorded(golden, "fsp", neighbours)


@pytest.mark.parametrize("sizes", [(4, 2, 4, 2), (2, 4, 3, 3), (5, 2, 2, 3)])
def test_the_formula(sizes):
  channels = (2, 3, 2, 3)
  maps = [
    cases.uniform(3, size, size, c, seed=i)
    for i, (size, c) in enumerate(zip(sizes, channels, strict=True))
  ]
  np.testing.assert_allclose(jax.jit(fsp)(*maps), reference(*maps), rtol=1e-4)
  assert not fsp(*maps[:2], *maps[:2]).any()


def test_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  # One map at a time: two float16 gradients of 65504 would add up to infinity.
  cases.check_hazards(
    lambda s, t: fsp(s, teacher[: len(s)], t, t), student, teacher
  )


def test_a_map_that_serves_twice_keeps_a_gradient_of_half_precision():
  shapes = [(2, 2, 2)] * 3
  student, teacher = (
    jax.tree.map(
      lambda x, scale=scale: (scale + 0 * x).astype("float16"),
      cases.outputs(shapes, 1),
    )
    for scale in (2e4, -1e4)
  )
  (stage,) = methods.make("fsp").stages
  (value, _), (_, of_student, _) = cases.graded(
    stage.loss, {}, {}, student, teacher
  )
  assert np.isfinite(value)
  for gradient in of_student.maps:
    # Each use of the middle map asks for far more than a float16 holds.
    np.testing.assert_array_equal(gradient, np.full_like(gradient, 65504))


def test_networks_of_other_channels_are_refused_in_one_line():
  x, y = np.zeros((1, 2, 2, 3), "f4"), np.zeros((1, 2, 2, 4), "f4")
  with pytest.raises(ValueError, match=r"\[3, 3\].*\[3, 4\]") as error:
    fsp(x, x, x, y)
  assert "\n" not in str(error.value)
  student = cases.outputs([(2, 2, 2), (1, 1, 2)], 1)
  teacher = cases.outputs([(2, 2, 2), (1, 1, 3)], 2)
  with pytest.raises(ValueError, match="fsp needs a teacher"):
    cases.begin(methods.make("fsp"), student, teacher)


def test_the_trunk_learns_first_and_the_labels_then():
  student = cases.outputs([(4, 4, 2), (4, 4, 3), (2, 2, 4)], 1)
  teacher = cases.outputs([(4, 4, 2), (4, 4, 3), (2, 2, 4)], 2)
  method = methods.make("fsp")
  params, state = cases.begin(method, student, teacher)
  (stage,) = method.stages
  assert (stage.epochs, stage.learning_rate) == (30, 0.05)
  assert stage.trains_student
  (value, metrics), (_, of_student, of_teacher) = cases.graded(
    stage.loss, params, state, student, teacher
  )
  expected = sum(
    reference(*(x[:, 0] for x in (*ours, *theirs))).mean()
    for ours, theirs in zip(
      itertools.pairwise(student.maps),
      itertools.pairwise(teacher.maps),
      strict=True,
    )
  )
  np.testing.assert_allclose([value, metrics["fsp"]], expected, rtol=1e-4)
  assert cases.reaches_all(of_student.maps)
  assert not of_student.logits.any()
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
  params, state = stage.finish(params, state)
  (value, _), (_, of_student, _) = cases.graded(
    method.loss, params, state, student, teacher
  )
  np.testing.assert_allclose(
    value, cases.reference_cross_entropy(student), rtol=1e-5
  )
  assert all(cases.is_zero(of_student.maps))
