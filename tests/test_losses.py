"""The losses against recorded references and at their limits."""

import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ckd_jax import losses
from tests.helpers.dtypes import every_dtype
from tests.helpers.paths import GOLDEN

LOSSES = GOLDEN / "losses"


def of_kd(facts, file):
  def loss(student):
    value = losses.kd(
      student, file["teacher_logits"], temperature=facts["temperature"]
    )
    return value.mean()

  value, gradient = jax.jit(jax.value_and_grad(loss))(file["student_logits"])
  return {"loss": value, "grad": gradient}


def of_ckd(facts, file):
  compare = jax.vmap(functools.partial(losses.ckd, mix=facts["mix"]))
  classes = len(file["bias"])

  def loss(weight, bias):
    logits = [
      file[f"inputs_{side}"] @ weight.T + bias[None, None]
      for side in ("pos", "neg")
    ]
    targets = {
      "cls": [
        jax.nn.one_hot(file[f"labels_{s}"], classes) for s in ("pos", "neg")
      ],
      "rel": [file[f"teacher_{side}"] for side in ("pos", "neg")],
    }
    terms = {
      name: compare(*logits, *target).mean() for name, target in targets.items()
    }
    return terms["cls"] + terms["rel"], (logits, terms)

  (value, (logits, terms)), gradients = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  )(file["weight"], file["bias"])
  return {
    **dict(zip(("student_pos", "student_neg"), logits, strict=True)),
    "cls_loss": terms["cls"],
    "rel_loss": terms["rel"],
    "loss": value,
    **dict(zip(("grad_weight", "grad_bias"), gradients, strict=True)),
  }


# What is computed from a recorded file, by the "loss" that the file names.
REPLAY = {"KD": of_kd, "CKD": of_ckd}


@pytest.mark.parametrize(
  "path",
  # The others are replayed beside their methods: tests/methods.
  sorted(
    path for name in ("kd_*", "ckd_*") for path in LOSSES.glob(f"{name}.json")
  ),
  ids=lambda p: p.stem,
)
def test_values_and_gradients_are_those_of_the_public_code(path):
  facts = json.loads(path.read_text())
  with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
    recorded = {name: file[name] for name in file}
  computed = REPLAY[facts["loss"]](facts, recorded)
  assert {"loss"} < computed.keys() <= recorded.keys()
  for name, value in computed.items():
    np.testing.assert_allclose(
      value, recorded[name], rtol=1e-4, atol=1e-6, err_msg=name
    )


@pytest.mark.parametrize("name", losses.__all__)
def test_arrays_are_positional_and_hyper_parameters_keywords(name):
  for parameter in inspect.signature(getattr(losses, name)).parameters.values():
    has_default = parameter.default is not parameter.empty
    assert has_default <= (parameter.kind is parameter.KEYWORD_ONLY), parameter


def in_groups(student, teacher, **hyper):
  sides = [half for x in (student, teacher) for half in (x[:1], x[1:])]
  return losses.ckd(*sides, **hyper)


LIMITS = {
  "kd": losses.kd,
  "kd_T1": functools.partial(losses.kd, temperature=1.0),
  "logit_mse": losses.logit_mse,
  "ckd": in_groups,
  "ckd_kl": functools.partial(in_groups, divergence="kl"),
  "ckd_mean": functools.partial(in_groups, mix="mean"),
  "ckd_all": losses.ckd_all,
  "ckd_all_lam": functools.partial(losses.ckd_all, mix=0.3),
}


@every_dtype
@pytest.mark.parametrize("name", LIMITS)
def test_values_and_gradients_are_finite_at_the_limits(name, dtype):
  draw = np.random.default_rng(0)
  some, others = draw.normal(size=(2, 4, 5))
  signs = 1e4 * np.sign(draw.normal(size=(2, 4, 5)))
  cases = {
    "ordinary": (some, others),
    "opposite and huge": (signs[0], -signs[0]),
    "huge": tuple(signs),
    "huge against small": (signs[0], others),
    "one row only": (some[:1].repeat(4, 0), others[:1].repeat(4, 0)),
    "equal": (some, some),
    "zero": (0 * some, 0 * some),
  }
  loss = jax.jit(
    jax.value_and_grad(lambda s, t: LIMITS[name](s, t).sum(), argnums=(0, 1))
  )
  for case, logits in cases.items():
    student, teacher = (jnp.asarray(x, dtype) for x in logits)
    value, (gradient, of_teacher) = loss(student, teacher)
    assert value.dtype == jnp.float32 and gradient.dtype == dtype
    # Of two log-probabilities that are nearly equal and huge, rounding is left.
    rounding = 1e-6 * (1 + max(np.abs(x).max() for x in logits))
    assert jnp.isfinite(value) and value >= -rounding, case
    assert jnp.isfinite(gradient).all(), case
    assert (of_teacher == 0).all(), case
    if case in ("equal", "zero"):
      assert value < 1e-6, case
      np.testing.assert_allclose(gradient, 0, atol=1e-6, err_msg=case)
    elif case in ("ordinary", "opposite and huge"):
      assert value > 0, case


@pytest.mark.parametrize("name", LIMITS)
def test_two_classes_are_enough(name):
  student, teacher = np.random.default_rng(1).normal(size=(2, 4, 2))
  value, gradient = jax.jit(
    jax.value_and_grad(lambda s: LIMITS[name](s, teacher).sum())
  )(jnp.asarray(student, jnp.float32))
  assert value > 0 and jnp.isfinite(gradient).all()


# One network under four libraries: tanh(x A + a) B + b, from the same numbers.
RATE = 0.1
SHAPES = {"a": (3, 6), "a_bias": (6,), "b": (6, 4), "b_bias": (4,)}


def weights():
  draw = np.random.default_rng(5)
  return {
    name: jnp.asarray(draw.normal(size=shape), jnp.float32)
    for name, shape in SHAPES.items()
  }


def objective(logits):
  """The sum of both kinds of loss, as a user's own pipeline would write it."""
  teacher = jnp.asarray(np.random.default_rng(6).normal(size=(8, 4)))
  compared = losses.ckd_all(logits, teacher, positives=2, negatives=1)
  return compared + losses.kd(logits, teacher, temperature=2.0).mean()


def inputs():
  return jnp.asarray(np.random.default_rng(7).normal(size=(8, 3)), jnp.float32)


def with_nothing():
  def loss(p):
    hidden = jnp.tanh(inputs() @ p["a"] + p["a_bias"][None])
    return objective(hidden @ p["b"] + p["b_bias"][None])

  value, gradient = jax.jit(jax.value_and_grad(loss))(weights())
  return value, jax.tree.map(lambda p, g: p - RATE * g, weights(), gradient)


def nested(kernel, bias):
  w = weights()
  return {
    layer: {kernel: w[layer], bias: w[f"{layer}_bias"]} for layer in ("a", "b")
  }


def flat(tree, kernel, bias):
  return {
    **{layer: tree[layer][kernel] for layer in ("a", "b")},
    **{f"{layer}_bias": tree[layer][bias] for layer in ("a", "b")},
  }


def with_linen():
  from flax import linen as nn

  class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(4, name="b")(jnp.tanh(nn.Dense(6, name="a")(x)))

  params = nested("kernel", "bias")
  value, gradient = jax.jit(
    jax.value_and_grad(
      lambda p: objective(Network().apply({"params": p}, inputs()))
    )
  )(params)
  updates, _ = optax.sgd(RATE).update(gradient, optax.sgd(RATE).init(params))
  return value, flat(optax.apply_updates(params, updates), "kernel", "bias")


def with_nnx():
  from flax import nnx

  class Network(nnx.Module):
    def __init__(self, rngs):
      self.a, self.b = nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
      return self.b(jnp.tanh(self.a(x)))

  network = Network(nnx.Rngs(0))
  nnx.update(network, nnx.State(nested("kernel", "bias")))
  optimizer = nnx.Optimizer(network, optax.sgd(RATE), wrt=nnx.Param)

  @nnx.jit
  def step(network, optimizer):
    value, gradient = nnx.value_and_grad(lambda n: objective(n(inputs())))(
      network
    )
    optimizer.update(network, gradient)
    return value

  value = step(network, optimizer)
  state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
  return value, flat(state, "kernel", "bias")


def with_equinox():
  eqx = pytest.importorskip("equinox")

  class Network(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __call__(self, x):
      return self.b(jnp.tanh(self.a(x)))

  def parts(n):
    return [n.a.weight, n.a.bias, n.b.weight, n.b.bias]

  w = weights()
  key = jax.random.key(0)
  network = eqx.tree_at(
    parts,
    Network(eqx.nn.Linear(3, 6, key=key), eqx.nn.Linear(6, 4, key=key)),
    [w["a"].T, w["a_bias"], w["b"].T, w["b_bias"]],
  )
  transform = optax.sgd(RATE)

  @eqx.filter_jit
  def step(network, state):
    value, gradient = eqx.filter_value_and_grad(
      lambda n: objective(jax.vmap(n)(inputs()))
    )(network)
    updates, _ = transform.update(gradient, state)
    return value, eqx.apply_updates(network, updates)

  arrays = eqx.filter(network, eqx.is_inexact_array)
  value, network = step(network, transform.init(arrays))
  a, a_bias, b, b_bias = parts(network)
  return value, {"a": a.T, "a_bias": a_bias, "b": b.T, "b_bias": b_bias}


def with_haiku():
  hk = pytest.importorskip("haiku")

  def network(x):
    return hk.Linear(4, name="b")(jnp.tanh(hk.Linear(6, name="a")(x)))

  apply = hk.without_apply_rng(hk.transform(network)).apply
  params = nested("w", "b")
  value, gradient = jax.jit(
    jax.value_and_grad(lambda p: objective(apply(p, inputs())))
  )(params)
  updates, _ = optax.sgd(RATE).update(gradient, optax.sgd(RATE).init(params))
  return value, flat(optax.apply_updates(params, updates), "w", "b")


@pytest.mark.parametrize(
  "library", [with_linen, with_nnx, with_equinox, with_haiku]
)
def test_one_step_is_the_same_under_every_library(library):
  value, updated = library()
  expected_value, expected = with_nothing()
  np.testing.assert_allclose(value, expected_value, rtol=1e-5)
  assert updated.keys() == expected.keys()
  for name, weight in updated.items():
    np.testing.assert_allclose(weight, expected[name], rtol=1e-5, atol=1e-6)
    if name != "b_bias":
      assert np.abs(weight - weights()[name]).max() > 1e-3


S, T = np.ones((6, 5), np.float32), np.zeros((6, 5), np.float32)


@pytest.mark.parametrize(
  "mistake",
  [
    lambda: losses.kd(S, T[0]),
    lambda: losses.logit_mse(S, T[:, :1]),
    lambda: losses.dkd(S, T[:1], np.zeros(6, np.int32)),
    lambda: losses.dist(S, T[:, :1]),
    lambda: losses.ckd_all(S, T[:1]),
    lambda: losses.ckd_all(S, T, positives=0),
    lambda: losses.ckd(S[0], S[1], T[0], T[1]),
    lambda: losses.ckd(S[:2], S[2:], T[:1], T[2:]),
    lambda: losses.ckd(S[:0], S[2:], T[:0], T[2:]),
  ],
)
def test_what_would_be_broadcast_is_refused(mistake):
  with pytest.raises(ValueError, match=r"shape|side|positives"):
    mistake()


def test_a_target_of_an_attack_that_is_no_class_is_refused():
  for wrong in (-1, 4):
    with pytest.raises(ValueError, match=f"a target is {wrong}, .* 0 to 3"):
      losses.bss_attack(lambda x: x, jnp.ones((2, 4)), np.array([0, wrong]))
