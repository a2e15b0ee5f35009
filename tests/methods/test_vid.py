"""VID: RepDistiller's numbers with its regressor, the density, the method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods.vid import vid
from tests.helpers import map_cases as cases


def reference(mean, teacher, log_scale, epsilon=1e-5):
  """The Gaussian's negative log-density, less its constant."""
  variance = np.log1p(np.exp(np.float64(log_scale))) + epsilon
  density = np.exp(-((np.float64(mean) - teacher) ** 2) / (2 * variance))
  density /= np.sqrt(2 * np.pi * variance)
  return (-np.log(density) - np.log(2 * np.pi) / 2).mean((1, 2, 3))


def predict(weights, x):
  """Three 1x1 convolutions, weights OIHW, ReLUs between."""
  first, second, third = (w[:, :, 0, 0].T for w in weights)
  return jax.nn.relu(jax.nn.relu(x @ first) @ second) @ third


def test_the_public_numbers(golden):
  case = cases.recorded(golden, "vid")
  weights = [np.load(golden / "losses/vid.npz")[f"w{i}"] for i in range(3)]

  @jax.jit
  @jax.value_and_grad
  def evaluate(student):
    mean = predict(weights, student)
    return vid(mean, case["teacher"], case["log_scale"]).mean()

  value, gradient = evaluate(case["student"])
  expected = case["grad"]
  gap = np.abs(gradient - expected).max() / np.abs(expected).max()
  print(f"vid: value {abs(value / case['loss'] - 1):.1e}, gradient {gap:.1e}")
  np.testing.assert_allclose(value, case["loss"], rtol=1e-6)
  np.testing.assert_allclose(
    gradient, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
  )


def test_the_methods_regressor_is_the_recorded_one(golden):
  case = cases.recorded(golden, "vid")
  weights = [np.load(golden / "losses/vid.npz")[f"w{i}"] for i in range(3)]
  layers = [{"weight": np.transpose(w, (2, 3, 1, 0))} for w in weights]
  params = {
    "heads": ({"layers": tuple(layers), "log_scale": case["log_scale"]},)
  }
  student, teacher = (
    cases.outputs([], 1)._replace(maps=(x[:6, None],) * 2)
    for x in (case["student"], case["teacher"])
  )
  (_, metrics), _ = cases.graded(
    methods.make("vid").loss, params, {}, student, teacher
  )
  exact = vid(
    predict(weights, case["student"][:6]),
    case["teacher"][:6],
    case["log_scale"],
  )
  np.testing.assert_allclose(metrics["vid"], exact.mean(), rtol=1e-5)


def test_the_formula_and_hazards():
  student, teacher = (
    cases.uniform(3, 4, 4, 2),
    cases.uniform(3, 4, 4, 2, seed=1),
  )
  scale = np.array([5.0, -1.0], "f4")
  np.testing.assert_allclose(
    jax.jit(vid)(student, teacher, scale),
    reference(student, teacher, scale),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    vid(student, teacher, 2.0, epsilon=0.5),
    reference(student, teacher, 2.0, epsilon=0.5),
    rtol=1e-5,
  )
  cases.check_hazards(lambda s, t: vid(s, t, scale), student, teacher)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_any_learned_scale_is_finite(dtype):
  student, teacher = (
    cases.uniform(3, 2, 2, 2),
    cases.uniform(3, 2, 2, 2, seed=1),
  )
  graded = jax.jit(jax.value_and_grad(lambda a: vid(student, teacher, a).sum()))
  for scale in (-1e4, -100.0, 0.0, 100.0, 1e4):
    value, gradient = graded(jnp.full(2, scale, dtype))
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all(), scale


def test_the_best_variance_is_the_mean_square():
  student, teacher = (
    cases.uniform(3, 2, 2, 1),
    cases.uniform(3, 2, 2, 1, seed=1),
  )
  best = np.log(np.expm1(np.square(student - teacher).mean() - 1e-5))
  gradient = jax.jit(jax.grad(lambda a: vid(student, teacher, a).mean()))
  np.testing.assert_allclose(gradient(best[None]), 0, atol=1e-6)


@pytest.mark.parametrize("variance", [1e-3, 5.0, 1000.0])
def test_the_variance_begins_where_it_is_told_to(variance):
  method = methods.make("vid", initial_variance=variance)
  maps = cases.outputs([(1, 1, 2)] * 2, 1)
  params, _ = cases.begin(method, maps, maps)
  begin = jax.nn.softplus(params["heads"][0]["log_scale"]) + 1e-5
  np.testing.assert_allclose(begin, variance, rtol=1e-5)


def test_the_method_trains_every_regressor_and_scale():
  student = cases.outputs([(4, 4, 2), (4, 4, 3), (2, 2, 4)], 1)
  teacher = cases.outputs([(4, 4, 2), (2, 2, 8), (4, 4, 9)], 2)
  method = methods.make("vid")
  params, state = cases.begin(method, student, teacher)
  (value, metrics), (heads, of_student, of_teacher) = cases.graded(
    method.loss, params, state, student, teacher
  )
  expected = 0.0
  for head, *pair in zip(
    params["heads"], student.maps[1:], teacher.maps[1:], strict=True
  ):
    np.testing.assert_allclose(
      np.log1p(np.exp(head["log_scale"])) + 1e-5, 5, rtol=1e-6
    )
    # Pooled before the regressor, which is not linear.
    ours, theirs = cases.reference_same_size(*(x[:, 0] for x in pair))
    weights = [
      np.transpose(layer["weight"], (3, 2, 0, 1)) for layer in head["layers"]
    ]
    guess = predict(weights, ours.astype("f4"))
    expected += reference(guess, theirs, head["log_scale"]).mean()
  np.testing.assert_allclose(metrics["vid"], expected, rtol=1e-4)
  labels = cases.reference_cross_entropy(student)
  np.testing.assert_allclose(value, expected + labels, rtol=1e-5)
  assert cases.reaches_all(heads)
  assert cases.is_zero(of_student.maps) == (True, False, False)
  assert all(jax.tree.leaves(cases.is_zero(of_teacher)))
