"""RTK: a version by loops, what is kept, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses, methods
from ckd_jax.methods._afd import afd_scores
from tests.helpers import map_cases as cases

STUDENT, TEACHER = ((4, 4, 3), (2, 2, 5)), ((4, 4, 6), (5, 3, 2), (2, 2, 7))


def maps(shapes, seed):
  return [x[:, 0] for x in cases.outputs(shapes, seed).maps]


@functools.cache
def case():
  """(student's maps, teacher's maps, heads)"""
  heads = losses.afd_heads(jax.random.key(0), (3, 5), (6, 2, 7), dim=8)
  return maps(STUDENT, 0), maps(TEACHER, 1), heads


@functools.partial(jax.jit, static_argnames="keep")
def graded(student, teacher, heads, keep):
  """(values, attention), and the gradients of the values' sum."""

  def loss(*trees):
    values = losses.rtk(*trees, keep=keep)
    weights = losses.rtk_attention(*trees, keep=keep)
    return values.sum(), (values, weights)

  of_all = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
  gradients, found = of_all(student, teacher, heads)
  return found, gradients


def energy(x, size):
  rows = cases.reference_pool(
    np.square(np.float64(x)).mean(-1, keepdims=True), size
  ).reshape(len(x), -1)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


SLOW = pytest.mark.slow  # other constants are compiled again


@pytest.mark.parametrize(
  "keep", [pytest.param(1, marks=SLOW), 2, pytest.param(3, marks=SLOW)]
)
def test_the_values_are_those_of_loops(keep):
  student, teacher, heads = case()
  (values, weights), _ = graded(student, teacher, heads, keep=keep)
  scores = np.float64(jax.jit(afd_scores)(student, teacher, heads))
  expected = np.zeros(6)
  for i in range(6):
    for s, ours in enumerate(student):
      best = np.argsort(-scores[i, :, s])[:keep]
      share = np.exp(scores[i, best, s]) / np.exp(scores[i, best, s]).sum()
      np.testing.assert_allclose(weights[i, s, best], share, rtol=1e-4)
      size = ours.shape[1:3]
      target = sum(
        a * energy(teacher[t][i : i + 1], size)[0]
        for a, t in zip(share, best, strict=True)
      )
      target = target / np.linalg.norm(target)
      expected[i] += np.square(energy(ours[i : i + 1], size)[0] - target).mean()
  np.testing.assert_allclose(values, expected, rtol=1e-4)
  assert ((weights > 0).sum(-1) == keep).all()
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_the_gradient_reaches_both_attentions_and_no_teacher():
  _, (of_student, of_teacher, of_heads) = graded(*case(), keep=2)
  assert cases.reaches_all(of_student)
  assert not any(leaf.any() for leaf in of_teacher)
  for head in (*of_heads.query, *of_heads.key, of_heads.bilinear):
    assert head.weight.any() and head.scale.any()
  assert of_heads.teacher_position.any() and of_heads.student_position.any()


def test_of_equal_keys_the_first_are_kept():
  student, teacher, heads = case()
  level = jax.tree.map(jnp.zeros_like, heads)
  (_, weights), _ = graded(student, teacher, level, keep=2)
  np.testing.assert_array_equal(weights, np.tile([0.5, 0.5, 0], (6, 2, 1)))


def test_none_kept_is_refused():
  with pytest.raises(ValueError, match="keep must be 1 or more, not 0"):
    losses.rtk(*case(), keep=0)
  # What a program is given cannot be looked at.
  given = jax.jit(lambda keep: losses.rtk_attention(*case(), keep=keep))(2)
  assert ((given > 0).sum(-1) == 2).all()


def test_one_map_that_is_the_teachers_costs_nothing():
  one = maps(STUDENT[:1], 0)
  heads = losses.afd_heads(jax.random.key(0), (3,), (3,), dim=8)
  (values, _), (of_student, _, _) = graded(one, one, heads, keep=1)
  np.testing.assert_allclose(values, 0, atol=1e-12)
  np.testing.assert_allclose(of_student[0], 0, atol=1e-6)


@pytest.mark.parametrize(
  ("kept", "keep"),
  [
    pytest.param(0.0, 1, marks=SLOW),
    (0.5, 2),
    pytest.param(1.0, 3, marks=SLOW),
  ],
)
def test_the_method_keeps_a_share_rounded_up(kept, keep):
  student, teacher = cases.outputs(STUDENT, 0), cases.outputs(TEACHER, 1)
  method = methods.make("rtk", dim=8, kept=kept)
  params, state = cases.begin(method, student, teacher)
  value, (_, metrics) = jax.jit(method.loss)(
    params, state, student, cases.batch(teacher), jax.random.key(1), 0
  )
  student_maps, teacher_maps, _ = case()
  (alone, _), _ = graded(student_maps, teacher_maps, params["heads"], keep=keep)
  np.testing.assert_allclose(metrics["rtk"], alone.mean(), rtol=1e-4)
  rest = cases.reference_cross_entropy(student)
  rest += 0.9 * losses.kd(student.logits, teacher.logits).mean()
  np.testing.assert_allclose(value, 200 * alone.mean() + rest, rtol=1e-4)
