"""MixKD: its formula, its mixtures, and who answers about them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import config as configuration
from ckd_jax import methods, models
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Outputs, Task, mixkd
from ckd_jax.step import forward
from tests.helpers.arrays import draw, log_softmax
from tests.helpers.texts import LENGTH, VIEW, tokens

ROWS, CLASSES = 4, 3
WEIGHTS = {"match": 1.0, "mixed_label": 1.0, "mixed_match": 1.0}


def pairs(length=LENGTH) -> Batch:
  """Texts beside the one before them, as `sample` gives them, and answers."""
  index = np.arange(ROWS)[:, None]
  index = np.concatenate([index, np.roll(index, 1, axis=0)], axis=1)
  rows = np.pad(tokens(ROWS, seed=3), [(0, 0), (0, length - LENGTH)])
  answers = 3 * draw(ROWS, CLASSES, seed=1)[index]
  labels = (index % CLASSES).astype(np.int32)
  return Batch(index, rows[index], labels, teachers=(Outputs(answers),))


@functools.cache
def mixed(length=LENGTH) -> Batch:
  method = methods.make("mixkd")
  return jax.jit(method.prepare)(jax.random.key(1), pairs(length))


def with_lam(batch: Batch, lam) -> Batch:
  lam = np.float32(lam) * np.ones(ROWS, np.float32)
  weights = np.array(batch.inputs.weights)
  weights[:, 1] = np.stack([lam, 1 - lam], axis=1)
  return batch._replace(inputs=batch.inputs._replace(weights=weights))


def terms(student, batch, **hyper) -> dict[str, float]:
  """The terms by name, and the loss."""
  method = methods.make("mixkd", **hyper)
  value, (state, found) = jax.jit(method.loss)(
    {}, {}, Outputs(student), batch, jax.random.key(0), 0
  )
  assert state == {}
  return {"loss": float(value), **{k: float(x) for k, x in found.items()}}


def by_hand(student, batch, target) -> dict[str, float]:
  """METHODS-2, section G, by loops."""
  answers = np.float64(batch.teachers[0].logits)
  found = dict.fromkeys((*WEIGHTS, "cross_entropy"), 0.0)
  for i in range(ROWS):
    lam, rest = np.float64(batch.inputs.weights[i, 1])
    alone, mixture = np.float64(student[i])
    about = lam * answers[i, 0] + rest * answers[i - 1, 0]
    about = answers[i, 1] if target == "live" else about
    first, second = (batch.labels[i, place] for place in (0, 1))
    both = lam * log_softmax(mixture)[first]
    both += rest * log_softmax(mixture)[second]
    for name, value in (
      ("cross_entropy", -log_softmax(alone)[first]),
      ("match", np.square(alone - answers[i, 0]).mean()),
      ("mixed_label", -both),
      ("mixed_match", np.square(mixture - about).mean()),
    ):
      found[name] += value / ROWS
  return found


@pytest.mark.parametrize("target", mixkd.TARGETS)
def test_the_loss_is_the_one_written_down(target):
  student = 2 * draw(ROWS, 2, CLASSES, seed=5)
  # What a live teacher says of the mixtures is something else than of texts.
  batch = mixed()
  answers = np.array(batch.teachers[0].logits)
  answers[:, 1] = draw(ROWS, CLASSES, seed=9)
  batch = batch._replace(teachers=(Outputs(answers),))
  expected = by_hand(student, batch, target)
  found = terms(student, batch, target=target)
  assert found.pop("loss") == pytest.approx(sum(expected.values()), rel=1e-5)
  assert found == pytest.approx(expected, rel=1e-5)
  half = {f"{name}_weight": 0.5 for name in expected}
  assert terms(student, batch, target=target, **half)["loss"] == pytest.approx(
    sum(expected.values()) / 2, rel=1e-5
  )


def test_what_is_mixed():
  """Each text alone, then with the one before it, by shares of its own."""
  batch, before = mixed(), pairs()
  parts, weights = batch.inputs
  assert parts.shape == (ROWS, 2, 2, LENGTH)
  for side in (0, 1):
    np.testing.assert_array_equal(parts[:, side], before.inputs)
  np.testing.assert_array_equal(weights[:, 0], [[1, 0]] * ROWS)
  np.testing.assert_allclose(weights.sum(-1), np.ones((ROWS, 2)), rtol=1e-6)
  assert len(set(weights[:, 1, 0].tolist())) == ROWS  # one draw for each pair
  assert batch.weights is None
  np.testing.assert_array_equal(batch.labels, before.labels)


def test_shares_are_of_beta():
  many = pairs()._replace(inputs=jnp.zeros((4000, 2, 1), jnp.int32))
  mix = jax.jit(functools.partial(mixkd.mix, parameter=0.4))
  lam = mix(jax.random.key(0), many).inputs.weights[:, 1]
  assert np.mean(lam[:, 0]) == pytest.approx(0.5, abs=0.03)
  # Beta(a, a) has the variance 1 / (4 (2 a + 1)).
  assert np.var(lam[:, 0]) == pytest.approx(1 / 7.2, rel=0.06)


def test_partners_are_the_batch_rotated():
  method = methods.make("mixkd")
  task = Task(20, CLASSES, 8, 2, jnp.zeros(24, jnp.int32))
  index = np.asarray(method.sample(jax.random.key(0), 0, task, {}))
  np.testing.assert_array_equal(index[:, 1], np.roll(index[:, 0], 1))
  assert len(set(index[:, 0].tolist())) == 8
  with pytest.raises(ValueError, match="batch_size is 1"):
    method.sample(jax.random.key(0), 0, task._replace(batch_size=1), {})


@functools.cache
def network():
  model = models.get("transformer_tiny", CLASSES, **VIEW.options())
  params, _ = model.init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))
  run = jax.jit(lambda params, inputs: forward(model, params, {}, inputs)[0])
  return params, run


def seen(batch: Batch) -> jax.Array:
  """The logits of a transformer, [batch, 2, classes]."""
  params, run = network()
  return run(params, batch.inputs).logits


def test_a_mixture_without_a_partner_is_the_text():
  batch = with_lam(mixed(), 1.0)
  student = seen(batch)
  np.testing.assert_allclose(student[:, 0], student[:, 1], rtol=1e-5, atol=1e-6)
  found = terms(student, batch, target="mixed_answers")
  assert found["mixed_label"] == pytest.approx(found["cross_entropy"], rel=1e-5)
  assert found["mixed_match"] == pytest.approx(found["match"], rel=1e-5)


def test_partners_may_change_places():
  batch = with_lam(mixed(), np.linspace(0.1, 0.9, ROWS))
  parts, weights = (np.array(x) for x in batch.inputs)
  parts[:, 1], weights[:, 1] = parts[:, 1, ::-1], weights[:, 1, ::-1]
  swapped = batch._replace(
    inputs=batch.inputs._replace(parts=parts, weights=weights),
    labels=batch.labels[:, ::-1],
  )
  one, other = (terms(seen(x), x) for x in (batch, swapped))
  for name in ("mixed_label", "mixed_match"):
    assert one[name] == pytest.approx(other[name], rel=1e-5)


def test_a_student_that_is_the_teacher_has_nothing_to_match():
  batch = mixed()
  student = seen(batch)
  batch = batch._replace(teachers=(Outputs(student),))
  found = terms(student, batch, target="live")
  assert found["match"] == found["mixed_match"] == 0
  assert found["mixed_label"] > 0
  # Mixed answers are something else: the network is not linear.
  assert terms(student, batch, target="mixed_answers")["mixed_match"] > 1e-4


def test_padding_changes_nothing():
  padded = pairs(LENGTH)
  assert not padded.inputs[..., -1].any()
  short = padded._replace(inputs=padded.inputs[..., :-1])
  one, other = (
    terms(seen(x), x, target="mixed_answers")
    for x in (
      jax.jit(methods.make("mixkd").prepare)(jax.random.key(1), x)
      for x in (short, padded)
    )
  )
  assert one == pytest.approx(other, rel=1e-5)


def test_the_gradient_reaches_the_words_of_both():
  batch = with_lam(mixed(), 0.5)
  params, run = network()
  method = methods.make("mixkd", cross_entropy_weight=0.0, match_weight=0.0)

  def loss(params):
    outputs = run(params, batch.inputs)
    return method.loss({}, {}, outputs, batch, jax.random.key(0), 0)[0]

  gradient = jax.jit(jax.grad(loss))(params)["embed"]["embedding"]
  moved = np.flatnonzero(np.abs(gradient).sum(1))
  words = np.unique(batch.inputs.parts)
  np.testing.assert_array_equal(moved, words[words > 0])


def test_a_table_cannot_answer_about_mixtures():
  flags = ("--config=sst2.py:method=mixkd", "--config.dataset.path=x")
  config, _ = configuration.from_flags([*flags])
  assert config.hyper.target == "mixed_answers"
  with pytest.raises(
    UserError, match=r"every step: set teacher\.live=True, or"
  ):
    configuration.from_flags([*flags, "--config.hyper.target=live"])
  with pytest.raises(ValueError, match=r"one of \('live', 'mixed_answers'\)"):
    methods.make("mixkd", target="alive")
