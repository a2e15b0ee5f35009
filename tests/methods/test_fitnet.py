"""FitNets: RepDistiller's numbers, the regressor's three shapes, the method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import _heads as heads
from ckd_jax.methods.fitnet import hint
from tests.helpers import map_cases as cases


def test_the_public_numbers(golden):
  cases.check_recorded(
    golden,
    "hint",
    lambda *x: [hint(*pair).mean() for pair in zip(*x, strict=True)],
  )


def test_the_formula_and_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  exact = np.square(np.float64(student) - teacher).mean((1, 2, 3))
  np.testing.assert_allclose(jax.jit(hint)(student, teacher), exact, rtol=1e-6)
  assert not hint(teacher, teacher).any()
  cases.check_hazards(hint, student, teacher)


def test_shapes_that_would_only_broadcast_are_refused():
  with pytest.raises(AssertionError, match="shape"):
    hint(np.zeros((2, 1, 1, 3), "f4"), np.zeros((2, 4, 4, 3), "f4"))


@pytest.mark.parametrize(
  ("student", "teacher", "kernel"),
  [
    ((4, 4, 2), (2, 2, 3), (3, 3, 2, 3)),
    ((2, 2, 2), (1, 1, 3), (3, 3, 2, 3)),
    ((2, 2, 2), (4, 4, 3), (4, 4, 3, 2)),
    ((3, 3, 2), (3, 3, 3), (1, 1, 2, 3)),
    ((5, 4, 2), (3, 3, 4), (3, 2, 2, 4)),
  ],
)
def test_the_regressor_reaches_the_teachers_shape(student, teacher, kernel):
  params = heads.regressor(jax.random.key(0), student, teacher)
  assert params["conv"]["weight"].shape == kernel
  x = cases.uniform(3, *student)
  y = jax.jit(lambda *a: heads.regress(*a, teacher))(params, x)
  expected = cases.reference_regress(params, x, teacher)
  assert y.shape == expected.shape == (3, *teacher)
  np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


def test_a_map_that_no_regressor_reaches_is_refused_in_one_line():
  with pytest.raises(ValueError, match=r"\(2, 2\) to a teacher's of \(8, 8\)"):
    heads.regressor(jax.random.key(0), (2, 2, 3), (8, 8, 3))


def test_heads_begin_as_pytorchs():
  key = jax.random.key(0)
  for layer, fan in (
    (heads.conv(key, 8, 4), 72),
    (heads.deconv(key, 8, 4), 36),
  ):
    assert layer["bias"].shape == (4,)
    assert 0.9 < np.abs(layer["weight"]).max() * fan**0.5 <= 1
    assert np.abs(layer["bias"]).max() * fan**0.5 <= 1


@pytest.mark.torch
def test_convolutions_are_pytorchs():
  torch = pytest.importorskip("torch")
  x = cases.uniform(2, 4, 4, 3)
  nchw = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
  for size, stride, padding in ((4, 2, 1), (3, 1, 1)):
    head = heads.deconv(jax.random.key(0), 3, 5, (size, size))
    theirs = torch.nn.functional.conv_transpose2d(
      nchw,
      torch.from_numpy(np.array(head["weight"]).transpose(3, 2, 0, 1).copy()),
      torch.from_numpy(np.array(head["bias"])),
      stride,
      padding,
    )
    ours = heads.apply_deconv(head, x, stride=stride, padding=padding)
    np.testing.assert_allclose(
      np.moveaxis(ours, -1, 1), theirs.numpy(), atol=1e-5
    )
  head = heads.conv(jax.random.key(0), 3, 5)
  theirs = torch.nn.functional.conv2d(
    nchw,
    torch.from_numpy(np.array(head["weight"]).transpose(3, 2, 0, 1).copy()),
    torch.from_numpy(np.array(head["bias"])),
    2,
    1,
  )
  ours = heads.apply_conv(head, x, stride=2, padding=1)
  np.testing.assert_allclose(
    np.moveaxis(ours, -1, 1), theirs.numpy(), atol=1e-5
  )


@pytest.mark.parametrize("hazard", ["one", "equal", "huge"])
def test_the_batch_norm_of_a_constant_map_is_finite(hazard):
  x = jnp.ones((1 if hazard == "one" else 3, 1, 1, 2))
  x = x * (6e4 if hazard == "huge" else 1.0)
  value, gradient = jax.jit(
    jax.value_and_grad(
      lambda x: heads.apply_batch_norm(heads.batch_norm(2), x).sum()
    )
  )(x)
  assert value == 0 and jnp.isfinite(gradient).all()


SHAPES = [(4, 4, 2), (4, 4, 2), (2, 2, 3)], [(4, 4, 2), (2, 2, 4), (4, 4, 3)]


@pytest.mark.parametrize(
  ("index", "signed"), [(1, False), (2, False), (2, True)]
)
def test_the_method_trains_the_student_and_its_regressor(index, signed):
  student, teacher = (cases.outputs(x, i) for i, x in enumerate(SHAPES))
  method = methods.make("fitnet", index=index, signed=signed)
  params, state = cases.begin(method, student, teacher)
  (value, metrics), (heads, of_student, of_teacher) = cases.graded(
    method.loss, params, state, student, teacher
  )
  target = teacher.maps[index][:, 0]
  guess = cases.reference_regress(
    params["regressor"], student.maps[index][:, 0], SHAPES[1][index]
  )
  guess = guess if signed else np.maximum(guess, 0)
  expected = np.square(guess - target).mean()
  np.testing.assert_allclose(metrics["hint"], expected, rtol=1e-5)
  labels = cases.reference_cross_entropy(student)
  np.testing.assert_allclose(value, 100 * expected + labels, rtol=1e-5)
  assert cases.reaches_all(heads)
  assert [not x for x in cases.is_zero(of_student.maps)] == [
    i == index for i in range(3)
  ]
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))


def test_an_index_beyond_the_maps_is_refused_in_one_line():
  student, teacher = (cases.outputs(x, i) for i, x in enumerate(SHAPES))
  with pytest.raises(ValueError, match="index 3 is not among 3 maps"):
    cases.begin(methods.make("fitnet", index=3), student, teacher)
