"""RKD: the recorded values, loops in float64, invariances, memory, hazards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax import methods, numerics
from ckd_jax.methods import rkd as file
from tests.helpers.arrays import draw
from tests.helpers.dtypes import every_dtype
from tests.helpers.relational import (
  batch_of,
  follows,
  no_gradient_reaches_the_teacher,
  stays_finite,
)

# Compiled as a whole: much faster than one operation after the other.
rkd = jax.jit(file.rkd)
rkd_angle = jax.jit(file.rkd_angle)
rkd_distance = jax.jit(file.rkd_distance)


def smooth_l1(gap):
  gap = abs(gap)
  return 0.5 * gap**2 if gap < 1 else gap - 0.5


def reference_distance(student, teacher):
  def relative(x):
    rows = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    positive = [d for d in rows.ravel() if d > 0]
    return rows / np.mean(positive)

  pairs = zip(relative(student).flat, relative(teacher).flat, strict=True)
  return np.mean([smooth_l1(s - t) for s, t in pairs])


def reference_angle(student, teacher):
  def cosine(x, i, j, k):
    a, b = x[j] - x[i], x[k] - x[i]
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / size if size else 0.0

  n = range(len(student))
  return np.mean([
    smooth_l1(cosine(student, i, j, k) - cosine(teacher, i, j, k))
    for i in n for j in n for k in n
  ])  # fmt: skip


def pair(n=6, student_dim=4, teacher_dim=9):
  return draw(n, student_dim), draw(n, teacher_dim, seed=1, scale=5.0)


def test_it_follows_the_public_implementation(golden):
  inputs = "student_logits", "teacher_logits"
  follows(rkd, golden / "losses/rkd.npz", inputs)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_formula(repeated):
  student, teacher = pair()
  student[0] *= 40  # far enough for the linear part of the distances
  if repeated:
    student[3] = student[2]
  exact = [x.astype(np.float64) for x in (student, teacher)]
  distance, angle = reference_distance(*exact), reference_angle(*exact)
  np.testing.assert_allclose(
    rkd_distance(student, teacher), distance, rtol=1e-5
  )
  np.testing.assert_allclose(rkd_angle(student, teacher), angle, rtol=1e-5)
  value = rkd(student, teacher, distance_weight=2.0, angle_weight=3.0)
  np.testing.assert_allclose(value, 2 * distance + 3 * angle, rtol=1e-5)


def test_the_gradient_is_that_of_the_formula():
  student, teacher = (x.astype(np.float64) for x in pair(5))

  def exact(flat):
    student = flat.reshape(5, -1)
    return 25 * reference_distance(student, teacher) + 50 * reference_angle(
      student, teacher
    )

  steps = 1e-5 * np.eye(student.size)
  slope = [
    (exact(student.ravel() + h) - exact(student.ravel() - h)) / 2e-5
    for h in steps
  ]
  gradient = jax.jit(jax.grad(rkd))(student.astype("f4"), teacher.astype("f4"))
  np.testing.assert_allclose(
    gradient.ravel(), slope, rtol=0, atol=2e-5 * np.abs(slope).max()
  )


def test_zero_at_the_teacher_and_for_one_example():
  student, _ = pair()
  np.testing.assert_allclose(rkd(student, student), 0, atol=1e-10)
  both = jax.jit(jax.value_and_grad(rkd))
  value, gradient = both(student[:1], 3 * student[1:2])
  assert value == 0 and not gradient.any()


def test_motions_scale_and_order_change_nothing():
  student, teacher = pair()
  turn, _ = np.linalg.qr(draw(4, 4, seed=2))
  order = np.random.default_rng(3).permutation(6)
  moved = (7 * student @ turn + 3)[order]
  np.testing.assert_allclose(
    rkd(moved, teacher[order]), rkd(student, teacher), rtol=1e-4
  )


def test_far_from_the_origin_the_distances_stay_exact():
  # By the Gram matrix the distance of repeated would be above 1 here.
  student, teacher = pair()
  student = student + 50
  student[3] = student[2]
  exact = [x.astype(np.float64) for x in (student, teacher)]
  np.testing.assert_allclose(
    rkd_distance(student, teacher), reference_distance(*exact), rtol=1e-4
  )


def test_a_large_batch_in_pieces_has_the_same_value_and_gradient(monkeypatch):
  expected = jax.jit(jax.value_and_grad(rkd))(*pair(7))
  # Angles 3 vertices at a time and one that is left over; distances in one.
  monkeypatch.setattr(numerics, "_PIECE", 3 * 7 * 9)
  pieces = jax.jit(jax.value_and_grad(file.rkd))
  assert "scan" in str(jax.make_jaxpr(file.rkd_angle)(*pair(7)))
  value, gradient = pieces(*pair(7))
  np.testing.assert_allclose(value, expected[0], rtol=1e-5)
  np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_pieces_on_four_devices_give_the_number_of_one(monkeypatch):
  monkeypatch.setattr(numerics, "_PIECE", 3 * 8 * 9)
  both = jax.jit(jax.value_and_grad(lambda *x: file.rkd(*x)))
  alone = both(*pair(8))
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  spread = jax.device_put(pair(8), rows)
  assert "scan" in str(jax.make_jaxpr(file.rkd)(*pair(8)))
  value, gradient = both(*spread)
  assert len(spread[0].sharding.device_set) == 4
  np.testing.assert_allclose(value, alone[0], rtol=1e-5)
  np.testing.assert_allclose(gradient, alone[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [rkd_angle, rkd_distance])
def test_neither_pass_holds_all_triplets_at_once(loss):
  n = 1024  # 4.3 GB of angles, 2.1 GB of differences
  points = jax.ShapeDtypeStruct((n, 512), jnp.float32)
  compiled = jax.jit(jax.grad(loss)).lower(points, points).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 300e6


@every_dtype
def test_hazards(dtype):
  stays_finite(rkd, dtype)


def test_no_gradient_reaches_the_teacher():
  no_gradient_reaches_the_teacher(rkd, *pair())


def test_the_method_adds_its_terms_on_embeddings():
  student, batch = batch_of()
  method = methods.make("rkd", weight=0.5, angle_weight=2.0, kd_weight=1.0)
  value, (state, metrics) = method.loss({}, {}, student, batch, None, 0)
  own = rkd(
    student.embedding[:, 0], batch.teachers[0].embedding[:, 0], angle_weight=2.0
  )
  assert state == {} and "embedding" in method.needs
  np.testing.assert_allclose(metrics["rkd"], own, rtol=1e-5)
  total = 0.5 * own + metrics["cross_entropy"] + metrics["kd"]
  np.testing.assert_allclose(value, total, rtol=1e-5)
  defaults = methods.defaults("rkd")
  names = "weight", "distance_weight", "angle_weight", "kd_weight"
  assert [defaults[name] for name in names] == [1.0, 25.0, 50.0, 0.0]
