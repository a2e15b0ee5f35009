"""SGD as PyTorch does it, and every schedule at the steps where it turns."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ckd_jax.step import optimizer

MOMENTUM, DECAY = 0.9, 5e-4
# The rate falls while the momentum buffer is full.
RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001]


def problem():
  """Parameters, and a gradient that depends on them and on the step."""
  draw = np.random.default_rng(0)
  params = {"w": draw.normal(size=(3, 2)), "b": draw.normal(size=2)}
  pulls = [
    {name: draw.normal(size=x.shape) for name, x in params.items()}
    for _ in RATES
  ]
  return params, pulls


def ours():
  params, pulls = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem())
  transform = optimizer.sgd(MOMENTUM, DECAY)
  state = transform.init(params)

  @jax.jit
  def step(params, state, pull, rate):
    gradient = jax.tree.map(lambda p, g: 0.3 * p + g, params, pull)
    updates, state = transform.update(gradient, state, params)
    return optimizer.apply(params, updates, rate), state

  for pull, rate in zip(pulls, RATES, strict=True):
    params, state = step(params, state, pull, jnp.float32(rate))
  return params


def test_momentum_decay_and_a_changing_rate_by_hand():
  params, pulls = problem()
  buffer = {name: np.zeros_like(x) for name, x in params.items()}
  for pull, rate in zip(pulls, RATES, strict=True):
    for name in params:
      gradient = 0.3 * params[name] + pull[name] + DECAY * params[name]
      buffer[name] = MOMENTUM * buffer[name] + gradient
      params[name] = params[name] - rate * buffer[name]
  for name, value in ours().items():
    np.testing.assert_allclose(value, params[name], rtol=1e-5, atol=1e-6)


@pytest.mark.torch
def test_it_is_torch_optim_sgd():
  torch = pytest.importorskip("torch")
  params, pulls = problem()
  params = {k: torch.nn.Parameter(torch.tensor(x)) for k, x in params.items()}
  sgd = torch.optim.SGD(
    params.values(), lr=1.0, momentum=MOMENTUM, weight_decay=DECAY
  )
  for pull, rate in zip(pulls, RATES, strict=True):
    sgd.param_groups[0]["lr"] = rate
    for name, x in params.items():
      x.grad = 0.3 * x.detach() + torch.tensor(pull[name])
    sgd.step()
  for name, value in ours().items():
    expected = params[name].detach().numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_a_rate_does_not_change_the_type_of_a_parameter():
  half = {"w": jnp.ones(2, jnp.bfloat16)}
  updated = optimizer.apply(half, half, jnp.float32(0.5))
  assert updated["w"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(updated["w"].astype(jnp.float32), [0.5, 0.5])


def rates(name, steps, at, **hyper):
  rate = optimizer.schedule(name, 0.05, steps, types.SimpleNamespace(**hyper))
  jitted = jax.jit(rate)
  values = [jitted(jnp.asarray(step, jnp.int32)) for step in at]
  assert all(value.shape == () for value in values)
  return np.array(values)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_constant_and_plateau_leave_the_rate_alone(name):
  np.testing.assert_allclose(rates(name, 100, [0, 50, 99]), 0.05, rtol=1e-6)


@pytest.mark.parametrize("per_epoch", [1, 25, 0.5])
def test_the_rate_falls_tenfold_after_150_180_and_210_of_240_epochs(per_epoch):
  turns = [int(epoch * per_epoch) for epoch in (150, 180, 210)]
  at = [0, *(step + side for step in turns for side in (-1, 0))]
  values = rates(
    "step",
    int(240 * per_epoch),
    [*at, int(240 * per_epoch) - 1],
    epochs=240,
    milestones=(150, 180, 210),
    factor=0.1,
  )
  levels = [0, 0, 1, 1, 2, 2, 3, 3]
  np.testing.assert_allclose(values, 0.05 * 0.1 ** np.array(levels), rtol=1e-5)


def test_cosine_warms_up_in_a_line_and_ends_at_zero():
  at = [0, 5, 10, 55, 100]
  values = rates("cosine", 100, at, warmup_fraction=0.1)
  half = [0, 0.025, 0.05, 0.025, 0]
  np.testing.assert_allclose(values, half, rtol=1e-5, atol=1e-8)
  at = np.arange(10, 101)
  expected = 0.05 * (1 + np.cos(np.pi * (at - 10) / 90)) / 2
  values = rates("cosine", 100, at, warmup_fraction=0.1)
  np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 100])
def test_cosine_without_warm_up_starts_at_the_top(steps):
  (first,) = rates("cosine", steps, [0], warmup_fraction=0.0)
  np.testing.assert_allclose(first, 0.05, rtol=1e-6)


def test_cosine_of_one_step_has_a_rate():
  (only,) = rates("cosine", 1, [0], warmup_fraction=0.05)
  np.testing.assert_allclose(only, 0.05, rtol=1e-6)


def test_adamw_is_that_of_optax():
  """Whose rate is inside; ours is applied after, to the same steps."""
  params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
  ours = optimizer.make("adamw", 0.8, 0.01)
  theirs = optax.adamw(0.05, b1=0.8, weight_decay=0.01)
  own, other = params, params
  own_state, other_state = ours.init(own), theirs.init(other)
  for turn in range(4):
    gradient = jax.tree.map(lambda x, turn=turn: jnp.cos(x + turn), params)
    direction, own_state = ours.update(gradient, own_state, own)
    own = optimizer.apply(own, direction, jnp.float32(0.05))
    change, other_state = theirs.update(gradient, other_state, other)
    other = optax.apply_updates(other, change)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), own, other
  )
