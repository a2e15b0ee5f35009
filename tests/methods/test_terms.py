"""A method from its terms: the sum, the log, the state, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses
from ckd_jax.methods import Outputs
from ckd_jax.methods._terms import Extra, Inputs, make_method
from tests.helpers.arrays import log_softmax
from tests.helpers.relational import batch_of


def square(inputs: Inputs):
  gap = inputs.student.logits - inputs.teacher.logits
  return {"square": (0.5, jnp.mean(jnp.square(gap)))}


def run(method, student, batch, state=()):
  return jax.jit(method.loss)({}, state, student, batch, jax.random.key(0), 0)


def test_a_method_is_its_terms_and_the_extra_ones():
  student, batch = batch_of()
  gap = np.float64(student.logits) - np.float64(batch.teachers[0].logits)
  value, (state, metrics) = run(make_method(square), student, batch)
  np.testing.assert_allclose(value, 0.5 * (gap**2).mean(), rtol=1e-5)
  np.testing.assert_allclose(metrics["square"], (gap**2).mean(), rtol=1e-5)
  assert set(metrics) == {"square"} and state == ()

  labelled = make_method(square, Extra(cross_entropy_weight=2.0))
  both, (_, metrics) = run(labelled, student, batch)
  rows = log_softmax(student.logits[:, 0])
  labels = -rows[np.arange(len(rows)), batch.labels[:, 0]].mean()
  np.testing.assert_allclose(both, value + 2 * labels, rtol=1e-5)
  np.testing.assert_allclose(metrics["cross_entropy"], labels, rtol=1e-5)


def test_kd_and_ckd_join_by_their_weights():
  student, batch = batch_of()
  value, _ = run(make_method(square), student, batch)
  method = make_method(square, Extra(kd_weight=2.0, ckd_weight=0.5))
  joined, (_, metrics) = run(method, student, batch)
  logits, answers = student.logits[:, 0], batch.teachers[0].logits[:, 0]
  one_hot = np.eye(logits.shape[-1], dtype="f4")[batch.labels[:, 0]]
  kd = losses.kd(logits, answers).mean()
  ckd = losses.ckd_all(logits, answers) + losses.ckd_all(logits, one_hot)
  np.testing.assert_allclose(metrics["kd"], kd, rtol=1e-5)
  np.testing.assert_allclose(metrics["ckd"], ckd, rtol=1e-5)
  np.testing.assert_allclose(joined, value + 2 * kd + ckd / 2, rtol=1e-5)


def test_what_is_logged_carries_no_gradient():
  student, batch = batch_of()
  method = make_method(square)

  def logged(logits):
    _, (_, metrics) = run(method, student._replace(logits=logits), batch)
    return metrics["square"]

  assert not np.any(jax.grad(logged)(student.logits))


def test_terms_may_give_the_next_state():
  student, batch = batch_of()

  def counted(inputs: Inputs):
    return square(inputs), inputs.state + 1

  _, (state, _) = run(make_method(counted), student, batch, jnp.int32(4))
  assert state == 5


def test_a_method_without_a_term_is_zero_and_has_a_gradient():
  student, batch = batch_of()
  method = make_method(lambda inputs: {})

  def loss(logits):
    return run(method, student._replace(logits=logits), batch)[0]

  value, slope = jax.value_and_grad(loss)(student.logits)
  assert value == 0 and not slope.any()


def test_a_network_without_an_embedding_is_refused():
  student, batch = batch_of()
  method = make_method(
    lambda inputs: {"gap": (1.0, jnp.sum(inputs.embeddings[0]))},
    needs=("embedding",),
  )
  assert method.needs == {"logits", "embedding"}
  assert np.isfinite(run(method, student, batch)[0])
  with pytest.raises(ValueError, match="must give them"):
    run(method, Outputs(student.logits), batch)


def test_a_negative_weight_is_refused():
  with pytest.raises(ValueError, match="kd_weight must be 0 or more"):
    make_method(square, Extra(kd_weight=-1.0))
