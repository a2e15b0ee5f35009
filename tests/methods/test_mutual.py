"""Mutual learning: the public numbers, loops, what stays apart, the cohort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses
from ckd_jax.numerics import cross_entropy
from tests.helpers.arrays import draw, log_softmax
from tests.helpers.recorded import near, recorded


@pytest.mark.parametrize(
  "name", [pytest.param("dml_2", marks=pytest.mark.slow), "dml_3", "dml_nct"]
)
def test_the_public_values_and_gradients(name):
  facts, file = recorded(name)
  labels = jnp.broadcast_to(
    file["labels"], (facts["members"], len(file["labels"]))
  )
  of_labels, of_peers = 1.0, 1.0
  if name == "dml_nct":
    of_peers = 0.9 * losses.ramp_up(facts["epoch"], facts["rampup"])
    near(of_peers, file["weight_kl"])
    of_labels = 1 - of_peers

  def loss(logits):
    peers = losses.mutual(logits, temperature=facts["temperature"])
    value = of_labels * cross_entropy(logits, labels) + of_peers * peers
    return value.mean(axis=1)

  near(jax.jit(loss)(file["member_logits"]), file["loss"])
  jacobian = jax.jit(jax.jacrev(loss))(file["member_logits"])
  for i in range(facts["members"]):
    near(jacobian[i, i], file["grad"][i])
  total = jax.jit(jax.grad(lambda x: loss(x).sum()))(file["member_logits"])
  near(total, file["grad"])


def reference(logits, t):
  members, n, _ = logits.shape
  value = np.zeros((members, n))
  rows = [log_softmax(z / t) for z in logits]
  for i, mine in enumerate(rows):
    for j, peer in enumerate(rows):
      if i != j:
        value[i] += (np.exp(peer) * (peer - mine)).sum(-1) / (members - 1)
  return t**2 * value


@pytest.mark.parametrize("members", [2, 4])
def test_the_definition(members):
  logits = draw(members, 5, 6, scale=3.0)
  found = jax.jit(losses.mutual)(logits, temperature=3.0)
  assert found.shape == (members, 5) and found.dtype == jnp.float32
  np.testing.assert_allclose(found, reference(logits, 3.0), rtol=1e-5)


def test_a_member_moves_towards_its_peers_and_moves_none_of_them():
  logits = draw(3, 4, 5)
  of_pairs = jax.jit(jax.jacrev(lambda x: losses.mutual(x).sum(1)))(logits)
  assert (of_pairs.any((2, 3)) == np.eye(3, dtype=bool)).all()


def test_another_shape_is_refused():
  for shape in ((3, 5), (3, 4, 5, 6)):
    with pytest.raises(ValueError, match=r"must be \[members, n, classes\]"):
      losses.mutual(draw(*shape))


@pytest.mark.slow  # the recorded gradients say the same
def test_the_gradient_is_a_finite_difference():
  logits = draw(3, 4, 5)
  loss = jax.jit(lambda x: losses.mutual(jnp.stack([x, *logits[1:]]))[0])
  check_grads(loss, (logits[0],), 1, ["rev"], 2e-2, 2e-2)


def test_equal_members_and_one_alone_give_zero():
  graded = jax.jit(jax.value_and_grad(lambda x: losses.mutual(x).sum()))
  one = draw(1, 4, 5)
  for members in (one, one.repeat(3, 0), 1e8 * np.sign(one).repeat(3, 0)):
    value, gradient = graded(members)
    assert value == 0
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
