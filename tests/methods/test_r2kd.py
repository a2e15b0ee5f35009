"""R2KD: both terms in float64, both branches, both teachers, hazards."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.methods.r2kd import _ranks, r2kd_rank, r2kd_value
from tests.helpers.arrays import draw, softmax
from tests.helpers.dtypes import every_dtype

GRADED = [
  jax.jit(jax.value_and_grad(loss))
  for loss in (r2kd_value, r2kd_rank, partial(r2kd_rank, soft=True))
]


def cosine(a, b):
  return abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8)


def reference_value(student, teacher, t=4.0):
  s, z = softmax(student / t), softmax(teacher / t)
  rows = [cosine(a, b) for a, b in zip(s, z, strict=True)]
  columns = [cosine(a, b) for a, b in zip(s.T, z.T, strict=True)]
  return t**2 * (2 - np.mean(rows) - np.mean(columns))


def reference_rank(student, teacher):
  correlations = []
  for s, z in zip(student, teacher, strict=True):
    ranks = [[np.sum(x < y) for y in x] for x in (s, z)]
    correlations.append(np.corrcoef(*ranks)[0, 1])
  return 1 - np.mean(correlations)


@pytest.mark.parametrize(("n", "classes"), [(6, 10), (1, 10), (6, 2)])
def test_the_formulas(n, classes):
  student, teacher = 3 * draw(n, classes), 3 * draw(n, classes, seed=1)
  np.testing.assert_allclose(
    jax.jit(r2kd_value)(student, teacher),
    reference_value(student, teacher),
    rtol=1e-4,
    atol=1e-5,
  )
  np.testing.assert_allclose(
    jax.jit(r2kd_rank)(student, teacher),
    reference_rank(student, teacher),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize("classes", [7, 300])  # counted, and sorted
def test_ranks_are_a_stable_order_of_equals(classes):
  x = np.random.default_rng(0).integers(0, 5, (4, classes)).astype("f4")
  x[1], x[2] = 0, -x[2]
  order = np.argsort(np.argsort(x, axis=1, kind="stable"), axis=1)
  np.testing.assert_array_equal(jax.jit(_ranks)(x), order)


def test_gradients_and_what_has_none():
  student, teacher = 3 * draw(5, 6), 3 * draw(5, 6, seed=1)
  loss = jax.jit(lambda s: r2kd_value(s, teacher))
  check_grads(loss, (student,), 1, ["rev"], 2e-2, 2e-2)
  assert not np.any(jax.jit(jax.grad(r2kd_rank))(student, teacher))
  soft = jax.jit(jax.grad(partial(r2kd_rank, soft=True)))(student, teacher)
  assert np.abs(soft).max() > 1e-3
  for loss in (r2kd_value, r2kd_rank):
    assert not np.any(jax.jit(jax.grad(loss, 1))(student, teacher))


def test_soft_ranks_become_the_ranks():
  student, teacher = 3 * draw(5, 6), 3 * draw(5, 6, seed=1)
  np.testing.assert_allclose(
    r2kd_rank(student, teacher, soft=True, softness=1e-4),
    reference_rank(student, teacher),
    rtol=1e-4,
  )


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("level", [0.0, 1.0, 0.1, -3e4])
def test_equal_logits_have_no_gradient_of_soft_ranks(level, classes):
  # 1e8 times the teacher's ranks otherwise, wherever a mean is rounded.
  student, teacher = jnp.full((4, classes), level), draw(4, classes)
  both = GRADED[-1]
  value, gradient = both(student, teacher)
  assert value == 1 and not gradient.any()
  # A first network, whose answers are almost equal, does have one.
  _, gradient = both(student + 1e-2 * draw(4, classes, seed=1), teacher)
  assert 0 < np.abs(gradient).max() < 1e3


def test_zero_at_the_teacher():
  teacher = 3 * draw(5, 6)
  assert abs(r2kd_value(teacher, teacher)) < 1e-4
  assert abs(r2kd_rank(teacher, teacher)) < 1e-6


@every_dtype
@pytest.mark.parametrize(
  "kind", ["zero", "equal", "duplicate", "large", "ruled_out", "binary", "one"]
)
def test_hazards(kind, dtype):
  student, teacher = draw(4, 6), draw(4, 6, seed=1)
  if kind == "zero":
    student[:], teacher[1] = 0, 0
  elif kind == "equal":
    student = teacher
  elif kind == "duplicate":
    student[:], teacher[:] = student[0], teacher[0]
  elif kind == "large":
    student, teacher = 1e4 * np.sign(student), -1e4 * np.sign(student)
  elif kind == "ruled_out":
    teacher[:, 2] = -np.inf
  elif kind == "binary":
    student, teacher = 500 * student[:, :2], 500 * teacher[:, :2]
  elif kind == "one":
    student, teacher = student[:1], teacher[:1]
  student, teacher = (jnp.asarray(x, dtype) for x in (student, teacher))
  for loss in GRADED:
    value, gradient = loss(student, teacher)
    assert np.isfinite(value) and value > -1e-3
    assert np.isfinite(gradient.astype(jnp.float32)).all()


def make_batch(teachers=1):
  method = methods.make("r2kd")
  labels = jnp.arange(9, dtype=jnp.int32) % 3
  task = Task(9, 3, 4, 2, labels)
  index = method.sample(jax.random.key(0), 0, task, {})
  table = [3 * draw(9, 3, seed=seed) for seed in range(teachers)]
  return Batch(
    index,
    jnp.asarray(draw(9, 8, 8, 3))[index],
    labels[index],
    teachers=tuple(Outputs(jnp.asarray(x)[index]) for x in table),
  )


@pytest.mark.parametrize(
  "augment",
  [
    "cutmix",
    *(pytest.param(x, marks=pytest.mark.slow) for x in ("mixup", "cutout")),
  ],
)
def test_the_altered_branch(augment):
  method = methods.make("r2kd", augment=augment, hole=4)
  before = make_batch()
  after = jax.jit(method.prepare)(jax.random.key(6), before)
  assert after.inputs.shape == before.inputs.shape and method.passes == (1, 1)
  np.testing.assert_array_equal(after.inputs[:, 0], before.inputs[:, 0])
  np.testing.assert_array_equal(after.labels[:, 1], before.labels[:, 0])
  clean, partner = np.moveaxis(np.asarray(before.inputs, np.float64), 1, 0)
  altered = np.asarray(after.inputs[:, 1], np.float64)
  if augment == "cutout":
    share = 1.0
    np.testing.assert_array_equal(altered[altered != 0], clean[altered != 0])
    assert 0 < (altered == 0).all((0, 3)).sum() <= 16
  else:
    # The least squares share of the clean image, pixel by pixel or over all.
    share = ((altered - partner) * (clean - partner)).sum() / (
      (clean - partner) ** 2
    ).sum()
    assert 0.01 < share < 0.99
  if augment == "cutmix":
    share = (altered == clean).all((0, 3)).mean()
  answers = softmax(before.teachers[0].logits)
  expected = share * answers[:, 0] + (1 - share) * answers[:, 1]
  np.testing.assert_allclose(
    softmax(after.teachers[0].logits[:, 1]), expected, rtol=1e-4
  )
  np.testing.assert_array_equal(
    after.teachers[0].logits[:, 0], before.teachers[0].logits[:, 0]
  )


def test_a_class_that_both_images_rule_out_stays_ruled_out():
  batch = make_batch()
  logits = batch.teachers[0].logits.at[:, :, 1].set(-jnp.inf)
  batch = batch._replace(teachers=(Outputs(logits),))
  for augment in ("cutmix", "mixup", "cutout"):
    method = methods.make("r2kd", augment=augment)
    mixed = method.prepare(jax.random.key(5), batch).teachers[0].logits
    assert np.all(np.isneginf(mixed[:, :, 1]))
    assert np.isfinite(mixed[:, :, ::2]).all()


@pytest.mark.parametrize("teachers", [1, 2])
def test_the_sum_of_the_method(teachers):
  method = methods.make("r2kd", kd_weight=0.5)
  batch = method.prepare(jax.random.key(5), make_batch(teachers))
  student = draw(4, 2, 3, seed=8)
  value, (state, metrics) = jax.jit(method.loss)(
    {}, {}, Outputs(student), batch, None, 0
  )
  answers = [np.asarray(x.logits, np.float64) for x in batch.teachers]
  target = 0.7 * answers[0] + 0.3 * answers[1] if teachers == 2 else answers[0]
  expected = {
    name: sum(reference(student[:, b], target[:, b]) for b in range(2))
    for name, reference in (
      ("value", reference_value),
      ("rank", reference_rank),
    )
  }
  rows = np.log(softmax(student[:, 0]))[np.arange(4), batch.labels[:, 0]]
  expected["cross_entropy"] = -rows.mean()
  s, z = softmax(student[:, 0] / 4), softmax(answers[0][:, 0] / 4)
  expected["kd"] = 16 * (z * np.log(z / s)).sum(1).mean()
  for name, want in expected.items():
    np.testing.assert_allclose(metrics[name], want, rtol=2e-4, err_msg=name)
  weights = {"value": 2, "rank": 2, "cross_entropy": 1, "kd": 0.5}
  np.testing.assert_allclose(
    value, sum(weights[k] * expected[k] for k in expected), rtol=1e-4
  )
  assert state == {}


@pytest.mark.parametrize("augment", ["cutmix", "mixup"])
def test_one_image_is_not_mixed_with_itself(augment):
  task = Task(9, 3, 1, 9, jnp.zeros(9, jnp.int32))

  def sample(augment):
    method = methods.make("r2kd", augment=augment)
    draw = jax.jit(lambda key: method.sample(key, 0, task, {}))
    return draw(jax.random.key(0))

  with pytest.raises(ValueError, match=f"{augment} mixes two .* batch_size is"):
    sample(augment)
  for alone in ("cutout", "none"):
    assert len(sample(alone)) == 1


def test_the_clean_branch_alone():
  method = methods.make("r2kd", augment="none")
  task = Task(9, 3, 4, 2, jnp.zeros(9, jnp.int32))
  index = method.sample(jax.random.key(0), 0, task, {})
  assert index.shape == (4, 1) and method.passes == ()
  with pytest.raises(ValueError, match="'autoaug'"):
    methods.make("r2kd", augment="autoaug")
