"""Losses of language models: every counted position is an example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs, TopK
from ckd_jax.methods._top import outcomes
from ckd_jax.table import form

HYPER = {
  "ckd": {"estimator": "all", "cross_entropy_weight": 0.5, "kd_weight": 0.5},
  "dkd": {"cross_entropy_weight": 0.5, "kd_weight": 0.5, "ckd_weight": 0.5},
  "logit_mse": {"kd_weight": 0.5, "ckd_weight": 0.5},
}
ROWS, LENGTH, VOCABULARY = 3, 5, 7


@pytest.fixture(scope="module")
def arrays():
  draw = np.random.default_rng(0)
  shape = (ROWS, LENGTH, VOCABULARY)
  student, teacher = 3 * draw.normal(size=(2, *shape)).astype(np.float32)
  labels = draw.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
  labels[0, 2:] = labels[1, :3] = -1
  return student, teacher, labels


def loss_of(method, student, teacher, labels):
  batch = Batch(
    jnp.arange(len(labels))[:, None],
    None,
    labels[:, None],
    teachers=(Outputs(teacher[:, None]),),
  )
  state = {"steps_per_epoch": jnp.int32(1)}
  return method.loss(
    {}, state, Outputs(student[:, None]), batch, jax.random.key(0), 0
  )[0]


@pytest.mark.parametrize(
  "name", ["ckd", "dkd", "kd", "logit_mse", "supervised"]
)
def test_positions_that_count_are_examples(name, arrays):
  method = methods.make(name, **HYPER.get(name, {}))
  student, teacher, labels = arrays
  keep = labels >= 0
  # What stands at the others has no effect.
  spoiled = np.where(keep[..., None], teacher, 1e4)
  graded = jax.jit(jax.value_and_grad(loss_of, 1), static_argnums=0)
  value, gradient = graded(method, student, spoiled, labels)
  flat = student[keep], teacher[keep], labels[keep]
  wanted, flat_gradient = graded(method, *flat)
  np.testing.assert_allclose(value, wanted, rtol=2e-5)
  np.testing.assert_allclose(
    np.asarray(gradient)[keep], flat_gradient, rtol=2e-3, atol=1e-6
  )
  assert not np.asarray(gradient)[~keep].any()
  assert method.answers == "any"


def test_nothing_counted_is_zero(arrays):
  student, teacher, labels = arrays
  value = loss_of(
    methods.make("kd"), student, teacher, np.full_like(labels, -1)
  )
  assert value == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_whole_vocabulary_is_all_logits(arrays, temperature):
  student, teacher, _ = arrays
  kept = form.top(teacher, "logits", VOCABULARY)
  assert np.all(kept.rest == 0)

  def value(student, teacher):
    found = losses.kd(*outcomes(student, teacher), temperature=temperature)
    return jnp.sum(found)

  graded = jax.jit(jax.value_and_grad(value))
  for found, wanted in zip(
    jax.tree.leaves(graded(student, kept)),
    jax.tree.leaves(graded(student, teacher)),
    strict=True,
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_some_tokens_are_outcomes_beside_the_rest(arrays):
  student, teacher, _ = arrays
  kept = form.top(teacher, "logits", 2)
  found = losses.kd(*outcomes(student, kept), temperature=1.0)
  log_s = np.float64(jax.nn.log_softmax(student))
  log_t = np.float64(jax.nn.log_softmax(teacher))
  for row in np.ndindex(ROWS, LENGTH):
    named = np.argsort(-log_t[row])[:2]
    rest_t, rest_s = (1 - np.exp(x[row][named]).sum() for x in (log_t, log_s))
    wanted = sum(np.exp(log_t[row][i]) * (log_t - log_s)[row][i] for i in named)
    wanted += rest_t * np.log(rest_t / rest_s)
    np.testing.assert_allclose(found[row], wanted, rtol=1e-4)
  # Coarser outcomes tell less apart.
  assert np.all(found <= losses.kd(student, teacher, temperature=1.0) + 1e-5)


def test_a_certain_student_and_teacher_are_finite():
  student = jnp.asarray([[1e4, 0.0, 0.0]])
  kept = TopK(
    jnp.asarray([[1, 0]]), jnp.asarray([[0.0, -jnp.inf]]), jnp.asarray([0.0])
  )

  def value(student):
    return jnp.sum(losses.kd(*outcomes(student, kept), temperature=1.0))

  found, gradient = jax.value_and_grad(value)(student)
  assert np.isfinite(found) and np.isfinite(gradient).all()
