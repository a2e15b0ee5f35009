"""CKD: one group against NumPy, all groups against enumeration, the offset."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses, methods
from ckd_jax.methods import Batch, Outputs

MIXES = ["difference", "mean", 0.3]
SIZES = [(1, 1), (2, 1), (2, 2), (3, 2)]
FEW = [
  pytest.param(size, marks=() if size == (3, 2) else pytest.mark.slow)
  for size in SIZES
]


def draw(*shape, seed=0, scale=3.0):
  return (scale * np.random.default_rng(seed).normal(size=shape)).astype("f4")


def mixed(mix, positive, negative):
  a, b = positive.astype("f8").mean(0), negative.astype("f8").mean(0)
  if mix == "difference":
    return a - b
  return (a + b) / 2 if mix == "mean" else mix * a + (1 - mix) * b


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def twin(sp, sn, tp, tn, mix="difference", divergence="mse", t=4.0):
  """One group, as the papers write it, in float64."""
  student, teacher = mixed(mix, sp, sn), mixed(mix, tp, tn)
  if divergence == "mse":
    return ((student - teacher) ** 2).mean()
  p, q = softmax(teacher / t), softmax(student / t)
  return t**2 * (p * np.log(p / q)).sum()


def a_group(p=2, n=1, classes=7):
  return tuple(draw(m, classes, seed=s) for s, m in enumerate((p, n, p, n)))


def a_batch(groups=5, size=2, classes=7, seed=0):
  """A Batch with labels and a teacher, and student logits beside it."""
  teacher = jnp.asarray(draw(groups, size, classes, seed=seed + 1))
  labels = np.random.default_rng(seed).integers(classes, size=(groups, size))
  labels = labels.astype(np.int32)
  batch = Batch(labels, None, labels, teachers=(Outputs(teacher),))
  return jnp.asarray(draw(groups, size, classes, seed=seed)), batch


def run(method, student, batch, key=0):
  value, (_, metrics) = method.loss(
    {}, {}, Outputs(student), batch, jax.random.key(key), 0
  )
  return value, metrics


@pytest.mark.parametrize("divergence", ["mse", "kl"])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("size", FEW)
def test_one_group_is_the_formula(mix, size, divergence):
  group = a_group(*size)
  loss = functools.partial(
    losses.ckd, mix=mix, divergence=divergence, temperature=2.0
  )
  expected = twin(*group, mix, divergence, 2.0)
  value = jax.jit(loss)(*group)
  assert value.shape == () and value.dtype == jnp.float32
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  of_students = jax.jit(lambda p, n: loss(p, n, *group[2:]))
  check_grads(of_students, group[:2], 1, ["rev"], 2e-2, 2e-2)


def test_unknown_words_are_refused():
  with pytest.raises(ValueError, match="mix must be"):
    losses.ckd(*a_group(), mix="product")
  with pytest.raises(ValueError, match="divergence must be"):
    losses.ckd(*a_group(), divergence="mae")
  with pytest.raises(ValueError, match="mix must be"):
    losses.ckd_all(draw(4, 3), draw(4, 3), mix="product")


def test_t_squared_undoes_a_change_of_units():
  group = a_group()
  at_one = losses.ckd(*group, divergence="kl", temperature=1.0)
  scaled = [5 * x for x in group]
  at_five = losses.ckd(*scaled, divergence="kl", temperature=5.0)
  np.testing.assert_allclose(at_five, 25 * at_one, rtol=1e-5)


def test_two_terms_are_one_with_the_mean_target():
  sp, sn, tp, tn = a_group()
  yp, yn = np.eye(7, dtype="f4")[[1, 4]], np.eye(7, dtype="f4")[[2]]

  def both(p, n):
    return losses.ckd(p, n, tp, tn) + losses.ckd(p, n, yp, yn)

  def once(p, n):
    return 2 * losses.ckd(p, n, (tp + yp) / 2, (tn + yn) / 2)

  gradients = [
    jax.jit(jax.grad(f, argnums=(0, 1)))(sp, sn) for f in (both, once)
  ]
  for first, second in zip(*gradients, strict=True):
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
  others = draw(2, 7, seed=8), draw(1, 7, seed=9)
  constant = [both(*x) - once(*x) for x in ((sp, sn), others)]
  np.testing.assert_allclose(*constant, rtol=1e-4)


@pytest.mark.parametrize("of_batch", [True, False])
def test_a_difference_sees_no_offset_and_gives_the_bias_no_gradient(of_batch):
  sp, sn, tp, tn = a_group(3, 2)
  shift = draw(1, 7, seed=9, scale=10.0)

  def loss(p, n):
    if not of_batch:
      return losses.ckd(p, n, tp, tn)
    teacher = np.concatenate([tp, tn])
    return losses.ckd_all(jnp.concatenate([p, n]), teacher, positives=2)

  value = loss(sp, sn)
  np.testing.assert_allclose(loss(sp + shift, sn + shift), value, rtol=1e-4)
  bias = jax.jit(jax.grad(lambda b: loss(sp + b[None], sn + b[None])))(
    jnp.zeros(7)
  )
  np.testing.assert_allclose(bias, np.zeros(7), atol=1e-6)
  assert np.abs(jax.jit(jax.grad(loss))(sp, sn)).max() > 0.1


def test_the_order_inside_a_side_and_of_the_sides_does_not_matter():
  sp, sn, tp, tn = a_group(3, 2)
  value = losses.ckd(sp, sn, tp, tn)
  turned = losses.ckd(sp[::-1], sn[::-1], tp[::-1], tn[::-1])
  np.testing.assert_allclose(turned, value, rtol=1e-5)
  np.testing.assert_allclose(losses.ckd(sn, sp, tn, tp), value, rtol=1e-5)
  student, teacher = draw(6, 4), draw(6, 4, seed=1)
  order = np.array([3, 0, 5, 1, 4, 2])
  for mix in MIXES:
    pair = [
      losses.ckd_all(s, t, positives=2, mix=mix)
      for s, t in ((student, teacher), (student[order], teacher[order]))
    ]
    np.testing.assert_allclose(*pair, rtol=1e-5)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("p", "n"), SIZES)
def test_all_is_the_mean_over_every_group(p, n, mix):
  student, teacher = draw(7, 4), draw(7, 4, seed=1)
  groups = np.array(
    [
      side + other
      for side in itertools.combinations(range(7), p)
      for other in itertools.combinations(sorted({*range(7)} - {*side}), n)
    ]
  )

  def enumerated(student):
    sides = [
      x[part]
      for x in (student, teacher)
      for part in (groups[:, :p], groups[:, p:])
    ]
    one = functools.partial(losses.ckd, mix=mix)
    return jnp.mean(jax.vmap(one)(*sides))

  def closed(student):
    return losses.ckd_all(student, teacher, positives=p, negatives=n, mix=mix)

  student = jnp.asarray(student)
  value, gradient = jax.jit(jax.value_and_grad(closed))(student)
  expected, slope = jax.jit(jax.value_and_grad(enumerated))(student)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean_weight", [0.0, 0.5, 1.0])
def test_the_family_is_its_formula(mean_weight):
  student, teacher = draw(6, 5), draw(6, 5, seed=1)
  d = student.astype("f8") - teacher
  spread = sum(np.sum((row - d.mean(0)) ** 2) for row in d) / 5
  inner = spread + mean_weight * np.sum(d.mean(0) ** 2)
  value = losses.ckd_all(
    student, teacher, positives=2, negatives=3, mean_weight=mean_weight
  )
  np.testing.assert_allclose(value, (1 / 2 + 1 / 3) * inner / 5, rtol=1e-5)
  batch = len(student)
  pairs = losses.ckd_all(student, teacher, mean_weight=batch / (batch - 1))
  matching = losses.logit_mse(student, teacher).mean()
  # mean |d_i|^2 = (B-1)/B S2 + |mean d|^2
  np.testing.assert_allclose((1 - 1 / batch) * pairs / 2, matching, rtol=1e-5)


def test_a_mix_takes_no_mean_weight():
  with pytest.raises(ValueError, match="mean_weight belongs to"):
    losses.ckd_all(draw(4, 3), draw(4, 3), mix="mean", mean_weight=1.0)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_a_batch_smaller_than_a_group_is_refused(wrap):
  loss = wrap(functools.partial(losses.ckd_all, positives=3, negatives=2))
  assert np.isfinite(loss(draw(5, 3), draw(5, 3, seed=1)))
  with pytest.raises(
    ValueError, match=r"a batch of 4 holds no group of 3 \+ 2"
  ):
    loss(draw(4, 3), draw(4, 3, seed=1))


def test_groups_of_a_batch_are_an_unbiased_estimate_of_all():
  student, batch = a_batch(groups=9, size=1)
  sizes = {"positives": 2, "negatives": 1}
  drawn = methods.make(
    "ckd", estimator="batch_groups", groups_per_batch=64, **sizes
  )
  closed = methods.make("ckd", estimator="all", **sizes)
  keys = jax.random.split(jax.random.key(0), 400)

  @jax.jit
  @jax.vmap
  def estimate(key):
    return drawn.loss({}, {}, Outputs(student), batch, key, 0)[1][1]

  _, exact = run(closed, student, batch)
  for name, values in estimate(keys).items():
    error = np.std(values, ddof=1) / np.sqrt(len(keys))
    assert abs(np.mean(values) - exact[name]) < 4 * error, name
    assert error < 0.02 * exact[name], name


@pytest.mark.parametrize(("p", "n"), SIZES)
def test_the_published_estimator_is_the_mean_over_its_groups(p, n):
  student, batch = a_batch(size=p + n)
  method = methods.make(
    "ckd",
    positives=p,
    negatives=n,
    teacher_weight=0.5,
    label_weight=2.0,
    cross_entropy_weight=0.25,
    kd_weight=3.0,
    temperature=2.0,
  )
  value, metrics = run(method, student, batch)
  s, t = np.asarray(student), np.asarray(batch.teachers[0].logits)
  y = np.eye(7)[batch.labels]

  def compared(target):
    return np.mean(
      [twin(a[:p], a[p:], b[:p], b[p:]) for a, b in zip(s, target, strict=True)]
    )

  flat, labels = s.reshape(-1, 7).astype("f8"), batch.labels.reshape(-1)
  probabilities = [softmax(row)[c] for row, c in zip(flat, labels, strict=True)]
  rows = zip(flat, t.reshape(-1, 7).astype("f8"), strict=True)
  expected = {
    "teacher": compared(t),
    "label": compared(y),
    "cross_entropy": -np.mean(np.log(probabilities)),
    "kd": np.mean(
      [
        4 * np.sum(softmax(b / 2) * np.log(softmax(b / 2) / softmax(a / 2)))
        for a, b in rows
      ]
    ),
  }
  assert method.passes == (p, n)
  assert set(metrics) == set(expected)
  for name, term in expected.items():
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
  weights = {"teacher": 0.5, "label": 2.0, "cross_entropy": 0.25, "kd": 3.0}
  total = sum(weights[name] * term for name, term in expected.items())
  np.testing.assert_allclose(value, total, rtol=1e-5)


def test_one_lam_per_batch_serves_both_terms():
  # Against a silent student the terms are lam^2 for this teacher and
  # (lam^2 + (1 - lam)^2) / classes for two different labels.
  teacher = np.stack([np.ones((5, 4)), np.zeros((5, 4))], axis=1)
  labels = np.tile(np.array([[0, 1]], np.int32), (5, 1))
  batch = Batch(labels, None, labels, teachers=(Outputs(teacher),))
  method = methods.make("ckd", mix="lam", beta=4.0)
  keys = jax.random.split(jax.random.key(0), 2000)

  @jax.jit
  @jax.vmap
  def terms(key):
    silent = Outputs(jnp.zeros((5, 2, 4)))
    return method.loss({}, {}, silent, batch, key, 0)[1][1]

  metrics = terms(keys)
  lam = np.sqrt(metrics["teacher"])
  label = (lam**2 + (1 - lam) ** 2) / 4
  np.testing.assert_allclose(metrics["label"], label, rtol=1e-4, atol=1e-6)
  # Beta(4, 4) has the variance 1/36; four standard errors of 2000 draws.
  assert abs(lam.mean() - 0.5) < 4 / np.sqrt(36 * 2000)
  assert abs(36 * lam.var() - 1) < 0.15


@pytest.mark.parametrize(
  "hyper",
  [
    {"divergence": "kl"},
    {"mix": "mean"},
    {"mix": "lam"},
    {"mean_weight": 0.5, "estimator": "all"},
    {"cross_entropy_weight": 1.0},
    {"kd_weight": 1.0},
    {"teacher_weight": 0.0, "label_weight": 0.0},
  ],
  ids=str,
)
def test_no_offset_where_the_loss_fixes_it(hyper):
  _, batch = a_batch()
  assert methods.make("ckd", **hyper).offset_target(batch) is None
  with pytest.raises(ValueError, match="offset='fit' needs a loss of"):
    methods.make("ckd", offset="fit", **hyper)


@pytest.mark.parametrize("estimator", ["groups", "batch_groups", "all"])
def test_the_fitted_offset_minimises_logit_matching(estimator):
  student, batch = a_batch(groups=9, size=1)
  weights = {"teacher_weight": 0.5, "label_weight": 2.0}
  method = methods.make("ckd", estimator=estimator, offset="fit", **weights)
  target = method.offset_target(batch)
  y, t = np.eye(7)[batch.labels], batch.teachers[0].logits
  np.testing.assert_allclose(target, (0.5 * t + 2 * y) / 2.5, rtol=1e-5)
  offset = (target - student).mean((0, 1))
  matching = methods.make("logit_mse", **weights)

  def matched(offset):
    return run(matching, student + offset[None, None], batch)[0]

  best, slope = jax.jit(jax.value_and_grad(matched))(offset)
  np.testing.assert_allclose(slope, np.zeros(7), atol=1e-5)
  for direction in draw(5, 7, seed=4, scale=0.3):
    assert matched(offset + direction) > best
  assert best < 0.9 * matched(jnp.zeros(7))


@pytest.mark.parametrize(
  ("hyper", "message"),
  [
    ({"mix": "product"}, "mix must be one of"),
    ({"divergence": "mae"}, "divergence must be one of"),
    ({"estimator": "some"}, "estimator must be one of"),
    ({"offset": "yes"}, "offset must be one of"),
    ({"positives": 0}, "positives must be 1 or more"),
    ({"temperature": 0.0}, "temperature must be above 0"),
    ({"beta": float("nan")}, "beta must be above 0"),
    ({"label_weight": -1.0}, "label_weight must be 0 or more"),
    ({"teacher_weight": float("inf")}, "teacher_weight must be 0 or more"),
    ({"estimator": "all", "divergence": "kl"}, "closed form for mse only"),
    ({"mean_weight": 1.0}, "mean_weight needs estimator='all'"),
    (
      {"mean_weight": 1.0, "estimator": "all", "mix": "mean"},
      "mean_weight needs estimator='all' and mix='difference'",
    ),
  ],
  ids=str,
)
def test_values_without_meaning_are_refused(hyper, message):
  with pytest.raises(ValueError, match=message):
    methods.make("ckd", **hyper)
