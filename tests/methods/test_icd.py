"""ICD: the recorded values, float64, the inert bias, the clamp."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs, Task
from tests.helpers.arrays import draw, softmax, unit
from tests.helpers.dtypes import every_dtype


def reference(student, teacher, log_scale, bias, alpha=0.5, max_scale=10.0):
  """The definition, with loops over rows, in float64."""
  u, v = unit(student), unit(teacher)
  scores = min(np.exp(log_scale), max_scale) * u @ v.T + bias
  n = len(scores)
  p, q = softmax(scores), softmax(scores.T)
  contrast = -sum(np.log(p[i, i]) for i in range(n)) / n
  consistency = sum((q[i] * np.log(q[i] / p[i])).sum() for i in range(n)) / n
  return contrast + alpha * consistency


@pytest.mark.parametrize("name", ["icd", "icd_clamped"])
def test_the_recorded_value_and_gradients(golden, name):
  file = np.load(golden / f"losses/{name}.npz", allow_pickle=False)
  facts = json.loads((golden / f"losses/{name}.json").read_text())

  def value(f_s, log_scale, bias, teacher_weight):
    student = f_s @ file["embed_s_w"].T + file["embed_s_b"][None]
    teacher = file["f_t"] @ teacher_weight.T + file["embed_t_b"][None]
    return losses.icd(
      student,
      teacher,
      log_scale=log_scale,
      bias=bias,
      alpha=facts["alpha"],
      max_scale=facts["max_tau"],
    )

  found, gradients = jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2, 3)))(
    file["f_s"],
    jnp.float32(facts["init_tau"]),
    jnp.float32(facts["init_b"]),
    file["embed_t_w"],
  )
  np.testing.assert_allclose(found, file["loss"], rtol=1e-5)
  recorded = [file[k] for k in ("grad", "grad_tau", "grad_b", "grad_embed_t_w")]
  for ours, theirs in zip(gradients, recorded, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)
  assert gradients[2] == 0  # the bias, exactly


@pytest.mark.parametrize("log_scale", [-1.0, 1.0, 4.0])
def test_the_definition(log_scale):
  r = np.random.default_rng(0)
  student, teacher = r.normal(size=(2, 12, 8))
  found = losses.icd(student, teacher, log_scale=log_scale, bias=0.7)
  np.testing.assert_allclose(
    found, reference(student, teacher, log_scale, 0.7), rtol=1e-5
  )


def test_the_bias_is_inert_and_the_clamp_stops_the_scale():
  student, teacher = draw(2, 6, 4, seed=1)
  value = lambda log_scale, bias: losses.icd(  # noqa: E731
    student, teacher, log_scale=log_scale, bias=bias
  )
  gradient = jax.jit(jax.grad(value, argnums=(0, 1)))
  assert value(1.0, 0.0) == value(1.0, 5.0) == value(1.0, -20.0)
  below, above = gradient(2.0, 3.0), gradient(3.0, 3.0)
  assert below[1] == above[1] == 0
  assert below[0] != 0 and above[0] == 0


def test_the_published_formula_does_not_feel_the_bias_either():
  # `reference` keeps the bias in both softmaxes, where `icd` leaves it out.
  student, teacher = draw(2, 6, 4, seed=1)
  for bias in (-20.0, 0.0, 3.0):
    found = losses.icd(student, teacher, log_scale=1.0, bias=bias)
    for step in (0.5, 0.0, -0.5):
      exact = reference(student, teacher, 1.0, bias + step)
      np.testing.assert_allclose(found, exact, rtol=1e-5)
  for scale in (1.5, 0.5):  # this it does feel
    other = losses.icd(student, teacher, log_scale=scale)
    np.testing.assert_allclose(
      other, reference(student, teacher, scale, 3.0), rtol=1e-5
    )
    assert abs(other - found) > 0.05


def test_however_large_the_scale_its_gradient_is_a_number():
  student, teacher = draw(2, 6, 4, seed=1)
  graded = jax.jit(
    jax.value_and_grad(
      lambda log_scale: losses.icd(student, teacher, log_scale=log_scale)
    )
  )
  for log_scale in (3.0, 89.0, 100.0, 1000.0):  # exp(89) overflows
    value, slope = graded(jnp.float32(log_scale))
    exact = reference(student, teacher, np.log(10.0), 0.0)
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert slope == 0
  for log_scale in (-1.0, 1.0, np.log(10.0) - 1e-6):
    _, slope = graded(jnp.float32(log_scale))
    high, low = (
      reference(student, teacher, log_scale + step, 0.0, max_scale=20.0)
      for step in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(slope, (high - low) / 2e-5, rtol=1e-4)
  # At the bound: one half, as of any minimum of two equal numbers.
  bound = jnp.log(jnp.float32(10.0))
  below = jnp.nextafter(bound, jnp.float32(0.0))
  np.testing.assert_allclose(graded(bound)[1], graded(below)[1] / 2, rtol=1e-5)


@every_dtype
@pytest.mark.parametrize("case", ["zeros", "duplicates", "one", "large"])
def test_degenerate_rows(case, dtype):
  r = np.random.default_rng(2).normal(size=(2, 5, 4))
  if case == "zeros":
    r[:, 2] = 0
  elif case == "duplicates":
    r[:, 3] = r[:, 1]
  elif case == "one":
    r = r[:, :1]
  else:
    r *= 1e4
  student, teacher = jnp.asarray(r, dtype)
  value, gradient = jax.jit(jax.value_and_grad(losses.icd, argnums=(0, 1)))(
    student, teacher
  )
  assert np.isfinite(value)
  assert all(np.isfinite(g.astype(jnp.float32)).all() for g in gradient)


def test_the_method_trains_both_heads_and_the_scale():
  method = methods.make("icd", dim=6)
  r = np.random.default_rng(3)
  labels = np.zeros((8, 1), np.int32)
  student = Outputs(
    r.normal(size=(8, 1, 3)).astype(np.float32),
    r.normal(size=(8, 1, 5)).astype(np.float32),
  )
  teacher = Outputs(
    r.normal(size=(8, 1, 3)).astype(np.float32),
    r.normal(size=(8, 1, 7)).astype(np.float32),
  )
  task = Task(8, 3, 8, 1, labels[:, 0])
  params, state = method.init(jax.random.key(0), task, student, teacher)
  batch = Batch(None, None, labels, None, (teacher,))
  gradient = jax.jit(
    jax.grad(
      lambda params: method.loss(
        params, state, student, batch, jax.random.key(1), 0
      )[0]
    )
  )(params)
  inert = gradient.pop("bias")
  assert inert == 0
  assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))
  assert params["log_scale"] == 1 and params["student"]["weight"].shape == (
    5,
    6,
  )
