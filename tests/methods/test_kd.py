"""KD: the formula in float64, T^2, a class ruled out, and the method's sum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs
from ckd_jax.numerics import cross_entropy
from tests.helpers import arrays
from tests.helpers.arrays import softmax
from tests.helpers.recorded import near, recorded

draw = functools.partial(arrays.draw, scale=3.0)


def reference(student, teacher, t):
  """T^2 sum_c p_c log(p_c / q_c), where 0 log 0 is 0."""
  rows = []
  for s, z in zip(softmax(student / t), softmax(teacher / t), strict=True):
    pairs = zip(z, s, strict=True)
    rows.append(t**2 * sum(p * np.log(p / q) for p, q in pairs if p > 0))
  return np.array(rows)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize(("n", "classes"), [(6, 10), (1, 10), (6, 2), (1, 2)])
def test_the_formula(n, classes, temperature):
  student, teacher = draw(n, classes), draw(n, classes, seed=1)
  value = jax.jit(losses.kd)(student, teacher, temperature=temperature)
  assert value.shape == (n,) and value.dtype == jnp.float32
  # The terms of the sum are of order 1 and may cancel: one rounding of 1.
  rounding = np.finfo(np.float32).eps * temperature**2
  expected = reference(student, teacher, temperature)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=rounding)


def test_the_gradient_is_t_times_the_gap_of_probabilities():
  student, teacher = draw(5, 8), draw(5, 8, seed=1)
  gradient = jax.jit(
    jax.grad(lambda s: losses.kd(s, teacher, temperature=3.0).sum())
  )
  expected = 3.0 * (softmax(student / 3) - softmax(teacher / 3))
  np.testing.assert_allclose(gradient(student), expected, rtol=1e-4, atol=1e-6)
  check_grads(
    lambda s: losses.kd(s, teacher), (student,), 1, ["rev"], 2e-2, 2e-2
  )


def test_t_squared_undoes_a_change_of_units():
  student, teacher = draw(5, 8), draw(5, 8, seed=1)
  at_one = losses.kd(student, teacher, temperature=1.0)
  at_five = losses.kd(5 * student, 5 * teacher, temperature=5.0)
  np.testing.assert_allclose(at_five, 25 * at_one, rtol=1e-5)


def test_it_is_zero_at_the_teacher_and_blind_to_an_offset_per_image():
  student, teacher = draw(5, 8), draw(5, 8, seed=1)
  assert np.abs(losses.kd(teacher, teacher)).max() == 0
  shift = draw(5, 1, seed=2).repeat(8, axis=1)
  np.testing.assert_allclose(
    losses.kd(student + shift, teacher), losses.kd(student, teacher), rtol=1e-4
  )


def test_a_class_ruled_out_keeps_value_and_gradient():
  student, teacher = draw(4, 6), draw(4, 6, seed=1)
  teacher[:, 2] = -np.inf
  value, gradient = jax.jit(
    jax.value_and_grad(lambda s: losses.kd(s, teacher, temperature=2.0).sum())
  )(student)
  np.testing.assert_allclose(
    value, reference(student, teacher, 2.0).sum(), rtol=1e-5
  )
  expected = 2.0 * (softmax(student / 2) - softmax(teacher / 2))
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_small_divergence_of_bfloat16_logits_is_not_rounded_away():
  # Arithmetic in bfloat16 prints 0.0 for a divergence of this size.
  teacher = jnp.asarray(draw(64, 100, scale=2.0), jnp.bfloat16)
  noise = jnp.asarray(draw(64, 100, seed=1, scale=0.1), jnp.bfloat16)
  student = teacher + noise
  value = losses.kd(student, teacher, temperature=1.0)
  exact = reference(
    *(np.asarray(x, np.float64) for x in (student, teacher)), 1.0
  )
  assert 0.003 < exact.mean() < 0.007
  np.testing.assert_allclose(value, exact, rtol=2e-3)
  np.testing.assert_allclose(value.mean(), exact.mean(), rtol=1e-4)


def test_the_method_adds_its_two_weighted_terms():
  student, teacher = draw(6, 1, 5), draw(6, 1, 5, seed=1)
  labels = np.arange(6, dtype=np.int32)[:, None] % 5
  batch = Batch(labels, None, labels, teachers=(Outputs(teacher),))
  method = methods.make(
    "kd", cross_entropy_weight=0.1, kd_weight=0.9, temperature=2.0
  )
  value, (state, metrics) = method.loss(
    {}, {}, Outputs(jnp.asarray(student)), batch, None, 0
  )
  rows = softmax(student[:, 0])
  label_term = -np.log(rows[np.arange(6), labels[:, 0]]).mean()
  teacher_term = reference(student[:, 0], teacher[:, 0], 2.0).mean()
  assert state == {}
  np.testing.assert_allclose(metrics["cross_entropy"], label_term, rtol=1e-5)
  np.testing.assert_allclose(metrics["kd"], teacher_term, rtol=1e-5)
  np.testing.assert_allclose(
    value, 0.1 * label_term + 0.9 * teacher_term, rtol=1e-5
  )
  assert method.offset_target(batch) is None


def test_experts_are_a_sum_of_kd():
  """DGKD and TAKD; torch's "mean" divides by the classes, too."""
  facts, file = recorded("dgkd")
  experts, labels = file["expert_logits"], file["labels"]

  def loss(student, share, temperature, kept):
    of_expert = functools.partial(losses.kd, temperature=temperature)
    values = jax.vmap(of_expert, (None, 0))(student, experts).mean(1)
    teaching = jnp.where(kept, values, 0).sum() / student.shape[1]
    label_term = cross_entropy(student, labels).mean()
    return (1 - share) * label_term + share * teaching

  graded = jax.jit(jax.value_and_grad(loss))
  student = file["student_logits"]
  for i, (share, kept) in enumerate(
    zip(facts["lambdas"], file["kept"], strict=True)
  ):
    value, gradient = graded(student, share, facts["temperature"], kept)
    near(value, file["loss"][i])
    near(gradient, file["grad"][i])
  for i, (share, temperature) in enumerate(facts["takd"]):
    first = np.arange(4) == 0
    value, gradient = graded(student, share, temperature, first)
    near(value, file["loss_takd"][i])
    near(gradient, file["grad_takd"][i])


def test_scores_are_matched_by_kd():
  """EmbedDistill's equation 11, over the documents."""
  facts, file = recorded("score_match")

  def loss(query, temperature):
    scores = query @ file["documents"].T
    teacher = file["teacher_scores"]
    return losses.kd(scores, teacher, temperature=temperature).mean()

  graded = jax.jit(jax.value_and_grad(loss))
  for i, temperature in enumerate(facts["temperatures"]):
    value, gradient = graded(file["query"], temperature)
    near(value, file["loss"][i])
    near(gradient, file["grad"][i])
