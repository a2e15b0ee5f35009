"""CKD's two losses: a group against NumPy, all groups against enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses
from tests.helpers.groups import SIZES, draw, reference

MIXES = ["difference", "mean", 0.3]
FEW = [
  pytest.param(size, marks=() if size == (3, 2) else pytest.mark.slow)
  for size in SIZES
]


def a_group(p=2, n=1, classes=7):
  return tuple(draw(m, classes, seed=s) for s, m in enumerate((p, n, p, n)))


@pytest.mark.parametrize("divergence", ["mse", "kl"])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("size", FEW)
def test_one_group_is_the_formula(mix, size, divergence):
  group = a_group(*size)
  loss = functools.partial(
    losses.ckd, mix=mix, divergence=divergence, temperature=2.0
  )
  expected = reference(*group, mix, divergence, 2.0)
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
