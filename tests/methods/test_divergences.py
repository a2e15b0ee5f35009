"""GKD's and DistiLLM's divergences: public numbers, float64, their ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ckd_jax import losses
from tests.helpers.arrays import draw, softmax
from tests.helpers.recorded import near, recorded

SKEWED = {
  "skew_kl": losses.skew_kl,
  "skew_reverse_kl": losses.skew_reverse_kl,
}
EVERY = {
  "reverse_kl": losses.reverse_kl,
  **SKEWED,
  **{
    f"jsd {beta}": functools.partial(losses.generalized_jsd, beta=beta)
    for beta in (0.0, 0.3, 1.0)
  },
}


def test_trls_values_and_gradients():
  facts, file = recorded("gkd_jsd")
  student, teacher = file["student_logits"], file["teacher_logits"]
  values = jax.jit(
    lambda beta, t: losses.generalized_jsd(
      student, teacher, beta=beta, temperature=t
    )
  )
  graded = jax.jit(
    jax.value_and_grad(
      lambda s, beta, t: losses.counted(
        losses.generalized_jsd(s, teacher, beta=beta, temperature=t),
        file["labels"],
      )
    )
  )
  settings = zip(facts["betas"], facts["temperatures"], strict=True)
  for i, setting in enumerate(settings):
    near(values(*setting), file["values"][i])
    value, gradient = graded(student, *setting)
    near(value, file["loss"][i])
    near(gradient, file["grad"][i])
    # Without labels TRL divides by sequences, not by positions.
    total = values(*setting).sum() / len(student)
    near(total, file["loss_no_labels"][i])


def test_distillms_values_and_gradients():
  facts, file = recorded("distillm")
  student, teacher = file["student_logits"], file["teacher_logits"]
  every = {
    "forward_kl": lambda s, _: losses.kd(s, teacher, temperature=1.0),
    "reverse_kl": lambda s, _: losses.reverse_kl(s, teacher),
    "skew_kl": lambda s, skew: losses.skew_kl(s, teacher, skew=skew),
    "skew_reverse_kl": lambda s, skew: losses.skew_reverse_kl(
      s, teacher, skew=skew
    ),
  }
  count = 0
  for name, loss in every.items():
    graded = jax.jit(
      jax.value_and_grad(
        lambda s, skew, loss=loss: losses.counted(loss(s, skew), file["labels"])
      )
    )
    for skew in facts["skews"] if name in SKEWED else (None,):
      key = name if skew is None else f"{name}_{skew}".replace(".", "p")
      value, gradient = graded(student, skew)
      entropy = file["entropy"] if name in ("forward_kl", "skew_kl") else 0
      near(value, file[f"loss_{key}"] - entropy, 1e-4)
      near(gradient, file[f"grad_{key}"], 1e-4)
      count += 1
  assert count == sum(key.startswith("loss_") for key in file)


def reference(name, student, teacher, share):
  """The definitions, in float64, with 0 log 0 = 0."""
  s, t = softmax(student), softmax(teacher)

  def kl(p, q):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(-1)

  if name == "skew_kl":
    return kl(t, share * t + (1 - share) * s)
  if name == "skew_reverse_kl":
    return kl(s, (1 - share) * t + share * s)
  if name == "reverse_kl":
    return kl(s, t)
  if share in (0, 1):
    return kl(s, t) if share else kl(t, s)
  m = share * t + (1 - share) * s
  return share * kl(t, m) + (1 - share) * kl(s, m)


def test_the_definitions():
  student, teacher = draw(2, 3, 6, scale=3), draw(2, 3, 6, seed=1, scale=3)
  every = {
    "reverse_kl": lambda s, t, share: losses.reverse_kl(s, t),
    "skew_kl": lambda s, t, share: losses.skew_kl(s, t, skew=share),
    "skew_reverse_kl": lambda s, t, share: losses.skew_reverse_kl(
      s, t, skew=share
    ),
    "jsd": lambda s, t, share: losses.generalized_jsd(
      2 * s, 2 * t, beta=share, temperature=2.0
    ),
  }
  for name, loss in every.items():
    loss = jax.jit(loss)
    for share in (0.0, 0.2, 1.0):
      found = loss(student, teacher, share)
      assert found.shape == (2, 3) and found.dtype == jnp.float32
      expected = reference(name, student, teacher, share)
      np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_class_ruled_out_keeps_value_and_gradient():
  student, teacher = draw(4, 6), draw(4, 6, seed=1)
  teacher[:, 2] = -np.inf
  for name, share in (("skew_kl", 0.2), ("skew_reverse_kl", 0.2), ("jsd", 0.2)):
    loss = SKEWED.get(name, EVERY["jsd 0.3"])
    keyword = "skew" if name in SKEWED else "beta"
    value, gradient = jax.jit(
      jax.value_and_grad(
        lambda s, loss=loss, keyword=keyword, share=share: loss(
          s, teacher, **{keyword: share}
        ).sum()
      )
    )(student)
    expected = reference(name, student, teacher, share).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all() and np.abs(gradient[:, 2]).min() > 0


def test_a_class_ruled_out_keeps_the_limits():
  """0 log 0 = 0, whichever side rules the class out, where KL is finite."""
  student, teacher, both = draw(4, 6), draw(4, 6, seed=1), draw(4, 6, seed=2)
  narrow, both[:, 2] = teacher.copy(), -np.inf
  narrow[:, 2] = -np.inf
  every = {
    "skew_kl": lambda s, t, share: losses.skew_kl(s, t, skew=share),
    "skew_reverse_kl": lambda s, t, share: losses.skew_reverse_kl(
      s, t, skew=share
    ),
    "jsd": lambda s, t, share: losses.generalized_jsd(s, t, beta=share),
  }
  for name, loss in every.items():
    graded = jax.jit(
      jax.value_and_grad(lambda *x, loss=loss: loss(*x).sum(), argnums=(0, 1))
    )
    for s, t in ((student, narrow), (both, teacher), (both, narrow)):
      for share in (0.0, 0.5, 1.0):
        with np.errstate(divide="ignore", invalid="ignore"):
          expected = reference(name, s, t, share).sum()
        if np.isfinite(expected):
          value, gradients = graded(s, t, share)
          case = f"{name} {share}"
          np.testing.assert_allclose(
            value, expected, rtol=1e-5, atol=1e-6, err_msg=case
          )
          assert all(np.isfinite(leaf).all() for leaf in gradients), case


@pytest.mark.parametrize("name", EVERY)
def test_equal_answers_give_zero_and_no_gradient_reaches_the_teacher(name):
  graded = jax.jit(
    jax.value_and_grad(lambda s, t: EVERY[name](s, t).sum(), argnums=(0, 1))
  )
  student, teacher = draw(5, 7, scale=3), draw(5, 7, seed=1, scale=3)
  for same in (student, 0 * student, 1e8 * np.sign(student)):
    value, gradients = graded(same, same)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradients[0], 0, atol=1e-6)
  value, (of_student, of_teacher) = graded(student, teacher)
  assert value > 0 and np.abs(of_student).max() > 0
  assert not of_teacher.any()


@pytest.mark.slow  # the recorded gradients say the same
@pytest.mark.parametrize("name", EVERY)
def test_the_gradient_is_a_finite_difference(name):
  student, teacher = draw(3, 5), draw(3, 5, seed=1)
  check_grads(
    jax.jit(lambda s: EVERY[name](s, teacher)),
    (student,),
    1,
    ["rev"],
    2e-2,
    2e-2,
  )


@pytest.mark.slow  # compiles everything once more
def test_of_one_class_nothing_can_differ():
  student, teacher = draw(5, 1), draw(5, 1, seed=1)
  for loss in EVERY.values():
    graded = jax.jit(jax.value_and_grad(lambda s, f=loss: f(s, teacher).sum()))
    value, gradient = graded(student)
    assert value == 0 and not gradient.any()


@pytest.mark.slow  # compiles everything twice more
def test_it_is_the_same_under_vmap():
  student, teacher = draw(4, 3, 5), draw(4, 3, 5, seed=1)
  for loss in EVERY.values():
    whole, rows = jax.jit(
      lambda s, t, loss=loss: (loss(s, t), jax.vmap(loss)(s, t))
    )(student, teacher)
    np.testing.assert_allclose(rows, whole, rtol=1e-6)


def test_another_shape_is_refused():
  for loss in EVERY.values():
    with pytest.raises(ValueError, match="shape"):
      loss(draw(4, 5), draw(1, 5))


def test_only_counted_positions_count():
  values = draw(3, 4)
  labels = np.array([[0, -1, 2, -100], [-1, -1, -1, -1], [5, 4, 0, 1]])
  expected = values[labels >= 0].mean()
  values[labels == -1], values[labels == -100] = np.nan, np.inf
  graded = jax.jit(jax.value_and_grad(losses.counted))
  value, gradient = graded(values, labels)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient, (labels >= 0) / 6, rtol=1e-6)
  for masked in (-np.ones_like(labels), -100 * np.ones_like(labels)):
    value, gradient = graded(values, masked)
    assert value == 0 and not gradient.any()
  assert value == recorded("gkd_jsd")[1]["loss_all_masked"]
  half = jax.eval_shape(
    losses.counted, jnp.ones(2, jnp.bfloat16), labels[0, :2]
  )
  assert half.dtype == jnp.float32
  with pytest.raises(ValueError, match="same shape"):
    losses.counted(values, labels[:1])
