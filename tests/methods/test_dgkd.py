"""DGKD and TAKD against the public codes; which term a step drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs
from tests.helpers.recorded import near, recorded

FACTS, FILE = recorded("dgkd")
CLASSES = FILE["student_logits"].shape[1]


def loss_of(method, experts, key=None):
  """(value, gradient) of the recorded student; `experts` are [e, n, c]."""
  labels = jnp.asarray(FILE["labels"], jnp.int32)[:, None]
  teachers = tuple(Outputs(jnp.asarray(x)[:, None]) for x in experts)
  batch = Batch(labels, None, labels, teachers=teachers)

  def loss(student):
    student = Outputs(student[:, None])
    return method.loss({}, {}, student, batch, key, 0)[0]

  return jax.jit(jax.value_and_grad(loss))(FILE["student_logits"])


@pytest.mark.parametrize("case", range(4))
def test_the_sum_over_those_that_are_kept_is_the_public_one(case):
  """Its KL is a mean over classes, too."""
  share = FACTS["lambdas"][case]
  method = methods.make(
    "dgkd",
    temperature=FACTS["temperature"],
    guidance_weight=share / CLASSES,
    cross_entropy_weight=1 - share,
    drop_num=0,
  )
  kept = FILE["expert_logits"][FILE["kept"][case]]
  value, gradient = loss_of(method, kept, jax.random.key(0))
  near(value, FILE["loss"][case])
  near(gradient, FILE["grad"][case], 2e-5)


@pytest.mark.parametrize("case", range(3))
def test_takd_is_a_run_of_kd(case):
  share, temperature = FACTS["takd"][case]
  method = methods.make(
    "kd",
    temperature=temperature,
    kd_weight=share / CLASSES,
    cross_entropy_weight=1 - share,
  )
  value, gradient = loss_of(method, FILE["expert_logits"][:1])
  near(value, FILE["loss_takd"][case])
  near(gradient, FILE["grad_takd"][case], 2e-5)


@pytest.mark.parametrize(("drop_num", "kept"), [(0, 4), (1, 3), (3, 1), (9, 1)])
def test_so_many_terms_are_dropped_each_as_often(drop_num, kept):
  experts = FILE["expert_logits"]
  method = methods.make("dgkd", drop_num=drop_num)
  each = [
    float(np.mean(losses.kd(FILE["student_logits"], x, temperature=5.0)))
    for x in experts
  ]
  labels = jnp.asarray(FILE["labels"], jnp.int32)[:, None]
  teachers = tuple(Outputs(jnp.asarray(x)[:, None]) for x in experts)
  batch = Batch(labels, None, labels, teachers=teachers)
  student = Outputs(jnp.asarray(FILE["student_logits"])[:, None])
  values = jax.jit(
    jax.vmap(lambda key: method.loss({}, {}, student, batch, key, 0)[0])
  )(jax.random.split(jax.random.key(0), 300))
  subsets = [
    [bit for bit in range(4) if mask >> bit & 1] for mask in range(1, 16)
  ]
  sums = {
    round(sum(each[i] for i in subset), 3): subset
    for subset in subsets
    if len(subset) == kept
  }
  found = [
    min(sums.items(), key=lambda item, value=value: abs(item[0] - value))
    for value in np.asarray(values)
  ]
  for (total, _), value in zip(found, values, strict=True):
    np.testing.assert_allclose(value, total, atol=2e-3)
  shares = np.bincount([i for _, subset in found for i in subset], minlength=4)
  np.testing.assert_allclose(shares / 300, kept / 4, atol=0.1)


def test_every_teacher_is_asked_about_every_row_and_the_largest_is_first():
  asked = []

  def expert(number):
    def answer(rows):
      asked.append((number, rows.tolist()))
      return Outputs(np.full((len(rows), 3), number))

    return answer

  method = methods.make("dgkd")
  teachers = method.consult([expert(0), expert(1)], np.zeros(5, np.int32))
  assert sorted(asked) == [(0, [*range(5)]), (1, [*range(5)])]
  assert [one.logits[0, 0] for one in teachers] == [1, 0]
