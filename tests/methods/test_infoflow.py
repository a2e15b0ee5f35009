"""Information flow: the formula in float64, its weights by epoch, hazards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.methods import infoflow as file
from ckd_jax.methods.infoflow import infoflow
from tests.helpers.arrays import draw
from tests.helpers.dtypes import every_dtype


def kernels(x):
  x = np.asarray(x, np.float64).reshape(len(x), -1)
  n = len(x)
  cosine, near = np.zeros((n, n)), np.zeros((n, n))
  for i in range(n):
    for j in range(n):
      lengths = np.linalg.norm(x[i]) * np.linalg.norm(x[j])
      cosine[i, j] = (x[i] @ x[j] / max(lengths, 1e-300) + 1) / 2
      near[i, j] = 1 / (1 + np.sqrt(((x[i] - x[j]) ** 2).sum() + 1e-6))
  return cosine, near


WAYS = [None, "_by_rows", "_by_columns"]  # by differences, on a TPU the last


def compute(wide, monkeypatch):
  """Makes every layer a wide one, on any device."""
  if wide:
    monkeypatch.setattr(file, "_DIFFERENCES", 0)
    monkeypatch.setattr(file, "_from_products", getattr(file, wide))


def reference(student, teacher):
  total = 0.0
  for s, t in zip(kernels(student), kernels(teacher), strict=True):
    s, t = (k / k.sum(1, keepdims=True) for k in (s, t))
    total += ((t - s) * (np.log(t) - np.log(s))).mean()
  return total


@pytest.mark.parametrize("wide", WAYS)
@pytest.mark.parametrize(
  "offset", [pytest.param(0.0, marks=pytest.mark.slow), 50.0]
)
def test_the_formula_for_layers_of_different_widths(offset, wide, monkeypatch):
  compute(wide, monkeypatch)
  student, teacher = draw(6, 3, 3, 2) + offset, draw(6, 4, seed=1) + offset
  value = jax.jit(lambda *x: infoflow(*x))(student, teacher)
  assert value.shape == () and value.dtype == jnp.float32
  np.testing.assert_allclose(value, reference(student, teacher), rtol=1e-4)
  loss = jax.jit(lambda s: infoflow(s, teacher))
  check_grads(loss, (student - offset,), 1, ["rev"], 2e-2, 2e-2)


def test_neighbours_in_clusters_far_apart_stay_neighbours():
  # Inner products would round the distances of neighbours to nothing: they
  # are as large as the distances of the clusters.
  student, teacher = draw(8, 64), draw(8, 64, seed=1)
  student[1::2] = student[::2]
  teacher[1::2] = teacher[::2]
  student[4:] += 1e4
  teacher[4:] += 1e4
  np.testing.assert_allclose(
    infoflow(student, teacher), reference(student, teacher), rtol=1e-4
  )


def test_it_is_symmetric_zero_at_the_teacher_and_blind_to_the_order():
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  value = infoflow(student, teacher)
  np.testing.assert_allclose(infoflow(teacher, student), value, rtol=1e-5)
  np.testing.assert_allclose(
    infoflow(student[::-1], teacher[::-1]), value, rtol=1e-5
  )
  assert infoflow(teacher, teacher) == 0
  assert infoflow(student[:1], teacher[:1]) == 0
  assert not np.any(jax.jit(jax.grad(infoflow, 1))(student, teacher))


@functools.cache
def graded(wide):
  """Compiled once for each of the two ways to compute it."""
  del wide
  return jax.jit(jax.value_and_grad(lambda *x: infoflow(*x)))


@pytest.mark.parametrize("wide", WAYS)
@every_dtype
@pytest.mark.parametrize(
  "kind", ["zero", "equal", "duplicate", "opposite", "large", "one"]
)
def test_hazards(kind, dtype, wide, monkeypatch):
  compute(wide, monkeypatch)
  student, teacher = draw(4, 6), draw(4, 6, seed=1)
  if kind == "zero":
    student[0], teacher[1] = 0, 0
  elif kind == "equal":
    student = teacher
  elif kind == "duplicate":
    student[:], teacher[:2] = student[0], teacher[0]
  elif kind == "opposite":
    student[1], teacher[3] = -student[0], -2 * teacher[0]
  elif kind == "large":
    student, teacher = 1e4 * student, 1e4 * teacher
  elif kind == "one":
    student, teacher = student[:1], teacher[:1]
  value, gradient = graded(wide)(
    jnp.asarray(student, dtype), jnp.asarray(teacher, dtype)
  )
  assert np.isfinite(value) and value >= 0
  assert np.isfinite(gradient.astype(jnp.float32)).all()


def outputs(seed, maps=2):
  shapes = [(4, 1, 2, 2, 3), (4, 1, 1, 1, 5)][:maps]
  return Outputs(
    draw(4, 1, 3, seed=seed),
    draw(4, 1, 6, seed=seed + 1),
    tuple(draw(*shape, seed=seed + 2) for shape in shapes),
  )


def test_maps_fade_over_epochs_and_labels_have_no_part():
  method = methods.make("infoflow")
  student, teacher = outputs(0), outputs(10)
  labels = np.zeros((4, 1), np.int32)
  batch = Batch(labels, None, labels, teachers=(teacher,))
  task = Task(20, 3, 4, 5, jnp.zeros(20, jnp.int32))
  params, state = method.init(jax.random.key(0), task, student, teacher)
  embedding = reference(student.embedding, teacher.embedding)
  maps = sum(map(reference, student.maps, teacher.maps))
  loss = jax.jit(
    lambda student, step: method.loss(params, state, student, batch, None, step)
  )
  for step, epoch in ((0, 0), (4, 0), (5, 1), (52, 10)):
    value, (_, metrics) = loss(student, step)
    expected = embedding + 100 * 0.7**epoch * maps
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert set(metrics) == {"embedding", "maps"}
  gradient = jax.jit(jax.grad(lambda student: loss(student, 0)[0]))(student)
  assert not np.any(gradient.logits)
  assert np.any(gradient.embedding) and all(map(np.any, gradient.maps))


def test_a_teacher_of_another_depth_is_refused():
  task = Task(20, 3, 4, 5, jnp.zeros(20, jnp.int32))
  with pytest.raises(ValueError, match="2 maps and the teacher 1"):
    methods.make("infoflow").init(None, task, outputs(0), outputs(0, maps=1))


@pytest.mark.parametrize("wide", WAYS[1:])
@pytest.mark.parametrize("kind", ["plain", "zero", "duplicate", "long"])
def test_the_gradient_of_wide_layers(kind, wide, monkeypatch):
  """Along directions in which rounding shows, by differences in float64."""
  student, teacher = draw(16, 9000), draw(16, 9000, seed=1)
  assert 16 * student.size > file._DIFFERENCES
  student, teacher = np.maximum(student, 0) + 0.3, np.maximum(teacher, 0) + 0.3
  if kind == "zero":
    student[3] = 0
  elif kind == "duplicate":
    student[5], teacher[2] = student[4], teacher[1]
  elif kind == "long":
    student[0] *= 100
  compute(wide, monkeypatch)
  gradient = jax.jit(jax.grad(lambda *x: infoflow(*x)))(student, teacher)
  monkeypatch.setattr(file, "_DIFFERENCES", 1e9)  # as narrow ones are computed
  again = jax.jit(jax.grad(lambda *x: infoflow(*x)))(student, teacher)
  scale = np.abs(gradient).max()
  # A row a hundred times as long as the others costs digits: 1.4e-3 under one
  # version of XLA; what rounding drowned was 5e-2 and more.
  np.testing.assert_allclose(gradient, again, atol=1e-2 * scale)
  random = np.random.default_rng(2)
  for row in (0, 3, 5, 9):
    if kind == "zero" and row == 3:
      continue  # there the cosine has no derivative; ours is 0
    along = np.zeros(student.shape)
    along[row] = student[row] + 0.1 * random.normal(size=student.shape[1])
    along /= np.linalg.norm(along)
    h = 1e-5 * np.linalg.norm(student[row])
    exact = student.astype(np.float64)
    slope = reference(exact + h * along, teacher) - reference(
      exact - h * along, teacher
    )
    slope /= 2 * h
    size = np.linalg.norm(gradient[row])
    assert abs(slope - np.sum(gradient * along)) < 1e-2 * size, (row, slope)
