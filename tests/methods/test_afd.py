"""AFD: the public numbers, the heads, hazards, the method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses, methods
from tests.helpers import map_cases as cases
from tests.helpers.arrays import draw
from tests.helpers.recorded import near

PARTS = losses.AFDHead._fields


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
def graded(student, teacher, heads):
  """((mean, attention), gradients of all): compiled once for most tests."""
  attention = losses.afd_attention(student, teacher, heads)
  return losses.afd(student, teacher, heads).mean(), attention


def recorded_heads(file, prefix=""):
  """AFDHeads of the arrays of these names, None for what is not recorded."""

  def head(name):
    keys = (f"{prefix}{name}_{part}" for part in PARTS)
    return losses.AFDHead(*(file.get(key) for key in keys))

  def heads(side):
    count = sum(key.startswith(f"{side}_") for key in file) // len(PARTS)
    return tuple(head(f"{side}_{i}") for i in range(count))

  return losses.AFDHeads(
    query=heads("query"),
    key=heads("key"),
    bilinear=head("bilinear"),
    teacher_position=file[f"{prefix}teacher_position"],
    student_position=file[f"{prefix}student_position"],
  )


def numbered(file, name):
  return [file[key] for key in sorted(file) if key[:-1] == f"{name}_"]


def case(golden, name="afd_uneven"):
  """(arrays, student's maps, teacher's maps, heads) as recorded."""
  file = cases.recorded(golden, name)
  maps = numbered(file, "student"), numbered(file, "teacher")
  return file, *maps, recorded_heads(file)


@pytest.mark.parametrize(
  "name", ["afd_uneven", pytest.param("afd", marks=pytest.mark.slow)]
)
def test_the_public_values_and_gradients(golden, name):
  file, *arguments = case(golden, name)
  (value, attention), (of_student, of_teacher, of_heads) = graded(*arguments)
  near(value, file["loss"])
  near(attention, file["attention"], 3e-5)
  for found, expected in zip(
    of_student, numbered(file, "grad_student"), strict=True
  ):
    near(found, expected, 3e-5)
  expected = recorded_heads(file, "grad_")
  heads = (*of_heads.query, *of_heads.key, of_heads.bilinear)
  for found, theirs in zip(
    heads, (*expected.query, *expected.key, expected.bilinear), strict=True
  ):
    largest = np.abs(theirs.weight).max()
    assert not np.any(found.bias)
    near(found.weight, theirs.weight, 1e-4)
    near(found.scale, theirs.scale, 1e-4)
    # That of the bilinear layer is the same for every student's map: it is 0.
    np.testing.assert_allclose(
      found.offset, theirs.offset, rtol=1e-4, atol=1e-5 * largest
    )
  near(of_heads.teacher_position, expected.teacher_position, 1e-4)
  near(of_heads.student_position, expected.student_position, 1e-4)
  assert not any(leaf.any() for leaf in of_teacher)


def test_the_heads_begin_as_pytorchs():
  begin = jax.jit(lambda key: losses.afd_heads(key, (16,), (64, 128)))
  heads = begin(jax.random.key(0))
  assert [head.weight.shape for head in heads.key] == [(16, 128)]
  assert [head.weight.shape[0] for head in heads.query] == [64, 128]
  assert heads.bilinear.weight.shape == (128, 256)
  for head in (*heads.query, *heads.key, heads.bilinear):
    bound = head.weight.shape[0] ** -0.5
    assert 0.95 * bound < np.abs(head.weight).max() <= bound
    assert 0 < np.abs(head.bias).max() <= bound
    assert (head.scale == 1).all() and not head.offset.any()
    assert head.scale.shape == head.offset.shape == head.weight.shape[1:]
  assert heads.teacher_position.shape == (2, 128)
  assert heads.student_position.shape == (1, 128)
  np.testing.assert_allclose(
    heads.teacher_position.std(), (2 / 130) ** 0.5, rtol=0.15
  )
  first = [np.asarray(head.weight[0, :4]) for head in heads.query]
  assert not np.allclose(first[0], first[1])


def test_attention_is_a_softmax_and_the_teacher_a_constant(golden):
  _, *arguments = case(golden)
  (value, attention), (of_student, of_teacher, of_heads) = graded(*arguments)
  assert jax.eval_shape(losses.afd, *arguments).shape == (8,)
  assert attention.shape == (8, 3, 2) and value > 0
  np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-6)
  assert all(leaf.any() for leaf in of_student)
  assert not any(leaf.any() for leaf in of_teacher)
  heads = (*of_heads.query, *of_heads.key, of_heads.bilinear)
  assert all(head.weight.any() and head.scale.any() for head in heads)


def test_maps_that_are_equal_or_proportional_cost_nothing():
  """One map each, of other channels: the value is where it is active."""
  teacher = cases.uniform(3, 4, 4, 2)
  student = 7 * np.concatenate([teacher, teacher], axis=-1)

  head = [losses.AFDHead(draw(n, 3), *draw(3, 3)) for n in (2, 4, 3)]
  heads = losses.AFDHeads(head[:1], head[1:2], head[2], draw(1, 3), draw(1, 3))
  value, slope = jax.jit(
    jax.value_and_grad(lambda x: losses.afd([x], [teacher], heads).sum())
  )(student)
  np.testing.assert_allclose(value, 0, atol=1e-10)
  np.testing.assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.slow  # the recorded gradients say the same
def test_the_gradient_is_a_finite_difference(golden):
  _, student, teacher, heads = case(golden)

  def loss(first, positions):
    moved = heads._replace(student_position=positions)
    return 10 * losses.afd([first, student[1]], teacher, moved)

  arguments = student[0], heads.student_position
  check_grads(jax.jit(loss), arguments, 1, ["rev"], 2e-2, 2e-2, eps=1e-2)


HAZARDS = {
  "zero": lambda x: 0 * x,
  "constant and huge": lambda x: 0 * x + 1e8,
  "huge": lambda x: 1e8 * np.sign(x),
  "tiny": lambda x: 1e-8 * x,
  "equal rows": lambda x: x[:1].repeat(len(x), 0),
  "one row": lambda x: x[:1],  # a shape of its own
}


@pytest.mark.parametrize(
  "name",
  [*list(HAZARDS)[:-1], pytest.param("one row", marks=pytest.mark.slow)],
)
def test_hazards_are_finite(golden, name):
  _, student, teacher, heads = case(golden)
  others = [HAZARDS[name](x) for x in teacher]
  for maps in ([HAZARDS[name](x) for x in student], student):
    if len(maps[0]) == len(others[0]):
      found = jax.tree.leaves(graded(maps, others, heads))
      assert all(np.isfinite(leaf).all() for leaf in found)


def test_heads_and_rows_that_do_not_fit_are_refused(golden):
  _, student, teacher, heads = case(golden)
  with pytest.raises(ValueError, match="1 student maps and 3 teacher maps"):
    losses.afd(student[:1], teacher, heads)
  with pytest.raises(ValueError, match="same examples"):
    losses.afd([x[:1] for x in student], teacher, heads)


def test_halves_are_computed_in_float32(golden):
  _, student, teacher, heads = case(golden)
  halves = [jnp.asarray(x, jnp.bfloat16) for x in student]
  value = jax.eval_shape(losses.afd, halves, teacher, heads)
  assert value.dtype == jnp.float32


SHAPES = ((4, 4, 3), (2, 2, 5)), ((4, 4, 6), (4, 4, 2), (2, 2, 7))


@pytest.mark.slow
def test_the_method_adds_labels_and_kd_to_200_times_afd():
  student, teacher = (
    cases.outputs(shapes, seed) for seed, shapes in enumerate(SHAPES)
  )
  method = methods.make("afd", dim=8)
  params, state = cases.begin(method, student, teacher)
  (value, metrics), (of_heads, of_student, of_teacher) = cases.graded(
    method.loss, params, state, student, teacher
  )
  maps = ([x[:, 0] for x in side.maps] for side in (student, teacher))
  (alone, _), _ = graded(*maps, params["heads"])
  divergence = losses.kd(student.logits, teacher.logits).mean()
  entropy = cases.reference_cross_entropy(student)
  np.testing.assert_allclose(metrics["afd"], alone, rtol=1e-5)
  np.testing.assert_allclose(
    value, 200 * alone + 0.9 * divergence + entropy, rtol=1e-5
  )
  assert cases.reaches_all(of_student) and "maps" in method.needs
  assert cases.reaches_all([head.weight for head in of_heads["heads"].query])
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
