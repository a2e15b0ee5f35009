"""AFD: the public numbers, the heads, hazards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses
from tests.helpers import map_cases as cases
from tests.helpers.recorded import near

GRADED = jax.jit(
  jax.value_and_grad(lambda *x: losses.afd(*x).sum(), argnums=(0, 1, 2))
)
PARTS = losses.AFDHead._fields
SHAPES = [(4, 4, 3), (2, 2, 4)], [(4, 4, 2), (3, 3, 4), (2, 2, 5)]


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


@pytest.mark.parametrize("name", ["afd", "afd_uneven"])
def test_the_public_values_and_gradients(golden, name):
  file = cases.recorded(golden, name)
  student, teacher = numbered(file, "student"), numbered(file, "teacher")

  def loss(student, heads, teacher):
    attention = losses.afd_attention(student, teacher, heads)
    return losses.afd(student, teacher, heads).mean(), attention

  (value, attention), (of_student, of_heads, of_teacher) = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
  )(student, recorded_heads(file), teacher)
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
    np.testing.assert_allclose(found.bias, 0, atol=1e-5 * largest)
    near(found.weight, theirs.weight, 1e-4)
    near(found.scale, theirs.scale, 1e-4)
    # That of the bilinear layer is the same for every student's map: it is 0.
    np.testing.assert_allclose(
      found.offset, theirs.offset, rtol=1e-4, atol=1e-5 * largest
    )
  near(of_heads.teacher_position, expected.teacher_position, 1e-4)
  near(of_heads.student_position, expected.student_position, 1e-4)
  assert not any(leaf.any() for leaf in of_teacher)


def drawn(n=5):
  """(student's maps, teacher's maps, heads) of SHAPES."""
  student, teacher = (
    [cases.uniform(n, *shape, seed=(side, i)) for i, shape in enumerate(shapes)]
    for side, shapes in enumerate(SHAPES)
  )
  channels = [[shape[-1] for shape in x] for x in SHAPES]
  draw = jax.jit(lambda key: losses.afd_heads(key, *channels, dim=6))
  return student, teacher, draw(jax.random.key(0))


def test_the_heads_begin_as_pytorchs():
  draw = jax.jit(lambda key: losses.afd_heads(key, (16, 32), (64, 128, 256)))
  heads = draw(jax.random.key(0))
  assert [head.weight.shape for head in heads.key] == [(16, 128), (32, 128)]
  assert [head.weight.shape[0] for head in heads.query] == [64, 128, 256]
  assert heads.bilinear.weight.shape == (128, 384)
  for head in (*heads.query, *heads.key, heads.bilinear):
    bound = head.weight.shape[0] ** -0.5
    assert 0.95 * bound < np.abs(head.weight).max() <= bound
    assert 0 < np.abs(head.bias).max() <= bound
    assert (head.scale == 1).all() and not head.offset.any()
    assert head.scale.shape == head.offset.shape == head.weight.shape[1:]
  assert heads.teacher_position.shape == (3, 128)
  assert heads.student_position.shape == (2, 128)
  np.testing.assert_allclose(
    heads.teacher_position.std(), (2 / 131) ** 0.5, rtol=0.15
  )
  first = [np.asarray(head.weight[0, :4]) for head in heads.query]
  assert not np.allclose(first[0], first[1])


def test_attention_is_a_softmax_and_the_teacher_a_constant():
  student, teacher, heads = drawn()
  attention = jax.jit(losses.afd_attention)(student, teacher, heads)
  assert attention.shape == (5, 3, 2)
  np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-6)
  value, gradients = GRADED(student, teacher, heads)
  assert value > 0
  assert jax.eval_shape(losses.afd, student, teacher, heads).shape == (5,)
  assert all(np.abs(leaf).max() > 0 for leaf in gradients[0])
  assert not any(leaf.any() for leaf in gradients[1])
  reached = jax.tree.map(lambda x: bool(np.any(np.abs(x) > 1e-7)), gradients[2])
  assert all(head.weight and head.scale for head in reached.query + reached.key)
  assert reached.bilinear.weight and reached.teacher_position
  assert reached.student_position


def test_maps_that_are_equal_or_proportional_cost_nothing():
  """One map each, of other channels: the value is where it is active."""
  teacher = cases.uniform(3, 4, 4, 2)
  student = 7 * np.concatenate([teacher, teacher], axis=-1)

  @jax.jit
  @jax.value_and_grad
  def graded(student):
    heads = losses.afd_heads(jax.random.key(0), (4,), (2,), dim=6)
    return losses.afd([student], [teacher], heads).sum()

  value, slope = graded(student)
  np.testing.assert_allclose(value, 0, atol=1e-10)
  np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_the_gradient_is_a_finite_difference():
  student, teacher, heads = drawn(n=3)

  def loss(first, positions):
    moved = heads._replace(student_position=positions)
    return 10 * losses.afd([first, student[1]], teacher, moved)

  arguments = student[0], heads.student_position
  check_grads(jax.jit(loss), arguments, 1, ["rev"], 2e-2, 2e-2, eps=1e-2)


def test_hazards_are_finite():
  student, teacher, heads = drawn()
  for hazard in (
    lambda x: 0 * x,
    lambda x: 0 * x + 1e8,
    lambda x: 1e8 * np.sign(x),
    lambda x: 1e-8 * x,
    lambda x: x[:1].repeat(5, 0),
  ):
    both = [[hazard(x) for x in side] for side in (student, teacher)]
    for s in (both[0], student):
      found = jax.tree.leaves(GRADED(s, both[1], heads))
      assert all(np.isfinite(leaf).all() for leaf in found)
  one = [[x[:1] for x in side] for side in (student, teacher)]
  found = jax.tree.leaves(GRADED(*one, heads))
  assert all(np.isfinite(leaf).all() for leaf in found)


def test_heads_and_rows_that_do_not_fit_are_refused():
  student, teacher, heads = drawn()
  with pytest.raises(ValueError, match="1 student maps and 3 teacher maps"):
    losses.afd(student[:1], teacher, heads)
  with pytest.raises(ValueError, match="same examples"):
    losses.afd([x[:1] for x in student], teacher, heads)
  halves = [jnp.asarray(x, jnp.bfloat16) for x in student]
  value = jax.eval_shape(losses.afd, halves, teacher, heads)
  assert value.dtype == jnp.float32
