"""CKD on features: loops over groups, the three losses, the sign option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.methods.ckd_features import difference
from tests.helpers.map_cases import reference_regress

GROUPS, CLASSES = 4, 3
PUBLISHED = {"fitnet": 100.0, "cc": 0.02, "vid": 1.0}
METRIC = {"fitnet": "hint", "cc": "cc", "vid": "vid"}


def outputs(group, seed) -> Outputs:
  draw = np.random.default_rng(seed)

  def array(*shape):
    return draw.normal(size=(GROUPS, group, *shape)).astype("f4")

  return Outputs(
    array(CLASSES), array(5), (array(4, 4, 2), array(4, 4, 3), array(2, 2, 3))
  )


def begin(group=2, **hyper):
  """(method, params, state, student, batch)."""
  method = methods.make("ckd_features", max_groups=60, **hyper)
  student, teacher = outputs(group, 0), outputs(group, 1)
  index = np.arange(GROUPS * group, dtype=np.int32).reshape(GROUPS, group)
  batch = Batch(index, None, index % CLASSES, teachers=(teacher,))
  task = Task(20, CLASSES, GROUPS, 5, jnp.arange(20) % CLASSES)
  first = jax.tree.map(lambda x: x[:1], (student, teacher))
  init = jax.jit(lambda key: method.init(key, task, *first))
  params, state = init(jax.random.key(0))
  return method, params, state, student, batch


def value_of(method, params, state, student, batch):
  loss = jax.jit(
    lambda student: method.loss(
      params, state, student, batch, jax.random.key(1), 0
    )
  )
  value, (after, metrics) = loss(student)
  assert after.keys() == state.keys()
  return value, metrics


def sides(x, positives):
  x = np.float64(x)
  return [x[:, :positives], x[:, positives:]]


def test_the_difference_is_that_of_the_side_means():
  before = outputs(3, 0)
  after = difference(before, 2)
  for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    for group in range(GROUPS):
      first = (np.float64(x[group, 0]) + x[group, 1]) / 2
      np.testing.assert_allclose(y[group, 0], first - x[group, 2], atol=1e-6)
  low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), before)
  assert difference(low, 2).embedding.dtype == jnp.float32


@pytest.mark.parametrize("features", PUBLISHED)
@pytest.mark.parametrize(
  "positives", [pytest.param(1, marks=pytest.mark.slow), 2]
)
def test_the_loss_is_ckd_plus_the_loss_of_the_differences(features, positives):
  case = begin(positives + 1, features=features, positives=positives)
  _, params, _, student, batch = case
  value, metrics = value_of(*case)
  teacher = batch.teachers[0]
  # The white-box method alone, told that the differences are the features.
  alone = methods.make(features, cross_entropy_weight=0.0)
  compared = [
    jax.tree.map(
      lambda x: np.float32(
        np.subtract(*[y.mean(1, keepdims=True) for y in sides(x, positives)])
      ),
      who,
    )
    for who in (student, teacher)
  ]
  told = Batch(None, None, batch.labels[:, :1], teachers=(compared[1],))
  own, (_, named) = jax.jit(alone.loss)(
    params, {}, compared[0], told, jax.random.key(1), 0
  )
  raw = named[METRIC[features]]
  np.testing.assert_allclose(metrics[METRIC[features]], raw, rtol=1e-5)
  np.testing.assert_allclose(own, PUBLISHED[features] * raw, rtol=1e-6)
  on_logits = 0.0
  ours = np.subtract(*[x.mean(1) for x in sides(student.logits, positives)])
  for target in (teacher.logits, np.eye(CLASSES)[batch.labels]):
    theirs = np.subtract(*[x.mean(1) for x in sides(target, positives)])
    on_logits += np.square(ours - theirs).mean()
  np.testing.assert_allclose(value, own + on_logits, rtol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_the_hint_of_differences_by_hand(signed):
  case = begin(3, positives=2, signed=signed)
  _, params, _, student, batch = case
  _, metrics = value_of(*case)
  ours, theirs = (
    np.float64(x.maps[2][:, :2]).mean(1) - x.maps[2][:, 2]
    for x in (student, batch.teachers[0])
  )
  guess = reference_regress(params["regressor"], ours, theirs.shape[1:])
  guess = guess if signed else np.maximum(guess, 0)
  np.testing.assert_allclose(
    metrics["hint"], np.square(guess - theirs).mean(), rtol=1e-5
  )


def test_only_a_signed_regressor_reaches_below_zero():
  """A teacher whose differences are all negative: the ReLU gives up at 0."""
  for signed in (False, True):
    method, params, state, student, batch = begin(signed=signed)
    teacher = batch.teachers[0]
    maps = tuple(
      np.stack([-np.ones_like(x[:, 0]), np.ones_like(x[:, 0])], 1)
      for x in teacher.maps
    )
    batch = batch._replace(teachers=(teacher._replace(maps=maps),))
    norm = params["regressor"]["norm"] | {"offset": jnp.full(3, -2.0)}
    norm["scale"] = jnp.zeros(3)
    params = {"regressor": params["regressor"] | {"norm": norm}}
    _, metrics = value_of(method, params, state, student, batch)
    # -2 is the target: hit exactly by the one, missed by 2 by the other.
    np.testing.assert_allclose(metrics["hint"], 0.0 if signed else 4.0)


def test_the_weights_and_the_offset():
  one, _ = value_of(*begin(weight=1.0))
  three, metrics = value_of(*begin(weight=3.0))
  np.testing.assert_allclose(three - one, 200 * metrics["hint"], rtol=1e-4)
  method, *_, batch = begin(offset="fit")
  target = method.offset_target(batch)
  one_hot = np.eye(CLASSES)[batch.labels]
  np.testing.assert_allclose(
    target, (batch.teachers[0].logits + one_hot) / 2, rtol=1e-6
  )
  assert method.passes == (1, 1)


@pytest.mark.parametrize(
  ("hyper", "words"),
  [
    ({"features": "hint"}, "features must be one of"),
    ({"weight": -1.0}, "weight must be 0 or more"),
    ({"positives": 0}, "positives must be 1 or more"),
    ({"offset": "fit", "kd_weight": 1.0}, "offset='fit'"),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(hyper, words):
  with pytest.raises(ValueError, match=words):
    methods.make("ckd_features", **hyper)
