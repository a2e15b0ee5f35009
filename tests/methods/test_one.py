"""ONE: the public numbers, definitions in float64, the method, its network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import ckd_jax
from ckd_jax import losses, methods, models
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.numerics import cross_entropy
from tests.helpers.arrays import draw, log_softmax, softmax
from tests.helpers.recorded import near, recorded
from tests.helpers.runs import CNN, QUICK, run

GATE = ("weight", "bias", "scale", "offset")


def test_the_public_values_and_gradients():
  facts, file = recorded("one")
  names = ("branch_logits", "features", *(f"gate_{part}" for part in GATE))

  def step(branches, *rest):
    gate = losses.one_gate(*rest)
    ensemble = losses.one_ensemble(branches, gate)
    every, labels = (*branches, ensemble), file["labels"]
    own = [cross_entropy(logits, labels).mean() for logits in every]
    kl = losses.one(branches, ensemble, temperature=facts["temperature"])
    weight = losses.ramp_up(facts["epoch"], facts["rampup"])
    found = {
      "gate": gate,
      "ensemble_logits": ensemble,
      "ce": jnp.stack(own),
      "kl": kl.mean(axis=1),
      "weight_kl": weight,
    }
    total = sum(own) + weight * jnp.sum(found["kl"])
    return total, found | {"total": total}

  (_, found), gradients = jax.jit(
    jax.value_and_grad(step, argnums=range(len(names)), has_aux=True)
  )(*(file[name] for name in names))
  for name, value in found.items():
    near(value, file[name])
  for name, gradient in zip(names, gradients, strict=True):
    if name == "gate_bias":  # the batch norm removes it
      np.testing.assert_allclose(gradient, 0, atol=1e-6)
    else:
      near(gradient, file[f"grad_{name}"])
  near(
    [losses.ramp_up(e, facts["rampup"]) for e in file["ramp_epochs"]],
    file["weight_ramp"],
  )


def gate_of(branches=3, dim=6):
  return (
    draw(dim, branches, seed=1),
    draw(branches, seed=2),
    draw(branches, seed=3),
    draw(branches, seed=4),
  )


def test_the_gate_is_the_definition():
  features, (weight, bias, scale, offset) = draw(7, 6), gate_of()
  x = np.float64(features) @ weight + bias
  x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) * scale + offset
  found = jax.jit(losses.one_gate)(
    features, weight, bias, scale, offset, epsilon=1e-3
  )
  np.testing.assert_allclose(found, softmax(np.maximum(x, 0)), rtol=1e-4)
  np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0])
def test_the_gradient_of_the_scale_is_that_of_the_definition(scale):
  features, (weight, bias, _, offset) = draw(7, 6), gate_of()
  offset = np.abs(offset)
  x = np.float64(features) @ weight + bias
  x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
  gate = softmax(np.maximum(x * scale + offset, 0))
  slope = gate[:, :1] * (np.eye(3)[:1] - gate)  # of the first branch's share
  slope = slope * (x * scale + offset > 0)
  gradients = jax.jit(
    jax.grad(
      lambda *x: losses.one_gate(features, weight, bias, *x)[:, 0].sum(),
      argnums=(0, 1),
    )
  )(np.full(3, scale, "f4"), offset)
  for found, each in zip(gradients, (x * slope, slope), strict=True):
    np.testing.assert_allclose(found, each.sum(0), rtol=1e-4, atol=1e-6)


def test_another_shape_of_the_gate_is_refused():
  features, (weight, *rest) = draw(7, 6), gate_of()
  for i, name in enumerate(("bias", "scale", "offset")):
    wrong = [x[:1] if i == j else x for j, x in enumerate(rest)]
    with pytest.raises(ValueError, match=rf"{name} \(1,\)"):
      losses.one_gate(features, weight, *wrong)


@pytest.mark.parametrize("hazard", ["one row", "equal rows", "zero", "huge"])
def test_the_gate_is_finite(hazard):
  features = draw(5, 6)
  features = {
    "one row": features[:1],
    "equal rows": features[:1].repeat(5, 0),
    "zero": 0 * features,
    "huge": 1e8 * features,
  }[hazard]
  value, gradients = jax.jit(
    jax.value_and_grad(
      lambda *x: losses.one_gate(*x)[:, 0].sum(), argnums=range(5)
    )
  )(features, *gate_of())
  assert np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in gradients)


def test_the_ensemble_is_the_gated_sum():
  logits, gate = draw(3, 5, 4), softmax(draw(5, 3, seed=1)).astype("f4")
  expected = np.einsum("bnc,nb->nc", np.float64(logits), gate)
  found = jax.jit(losses.one_ensemble)(logits, gate)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(ValueError, match="gate"):
    losses.one_ensemble(logits, gate[:, :1])


def test_the_loss_is_the_definition():
  branches, ensemble = draw(3, 5, 4, scale=3.0), draw(5, 4, seed=1, scale=3.0)
  q = softmax(ensemble / 2) + 1e-7
  own = log_softmax(branches / 2)
  expected = 4 * (q * (np.log(q) - own)).sum(-1)
  found = jax.jit(losses.one)(branches, ensemble, temperature=2.0)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  with pytest.raises(ValueError, match="shape"):
    losses.one(branches, ensemble[:1])


def test_branches_learn_and_the_ensemble_does_not():
  branches, ensemble = draw(3, 5, 4), draw(5, 4, seed=1)
  graded = jax.jit(
    jax.value_and_grad(lambda b, e: losses.one(b, e).sum(), argnums=(0, 1))
  )
  _, (of_branches, of_ensemble) = graded(branches, ensemble)
  assert np.abs(of_branches).min() > 0 and not of_ensemble.any()
  value, (gradient, _) = graded(ensemble[None], ensemble)
  assert abs(value) < 1e-4  # 5 rows * 4 classes * 1e-7 * 9
  np.testing.assert_allclose(gradient, 0, atol=1e-5)
  huge = 1e8 * np.sign(branches)
  assert all(
    np.isfinite(leaf).all() for leaf in jax.tree.leaves(graded(huge, -huge[0]))
  )


def test_the_ramp():
  steps = np.array([-1, 0, 10, 20, 30])
  expected = np.exp(-5 * (1 - np.clip(steps / 20, 0, 1)) ** 2)
  ramp = jax.jit(jax.vmap(losses.ramp_up, (0, None)))
  np.testing.assert_allclose(ramp(steps, 20), expected, rtol=1e-6)
  assert (ramp(steps, 0) == 1).all()
  assert jax.grad(losses.ramp_up)(3.0, 0.0) == 0


@pytest.mark.slow  # the recorded gradients say the same
def test_the_gradient_is_a_finite_difference():
  branches, ensemble = draw(3, 5, 4), draw(5, 4, seed=1)
  loss = jax.jit(lambda b: losses.one(b, ensemble))
  check_grads(loss, (branches,), 1, ["rev"], 2e-2, 2e-2)


def test_the_method_is_the_public_step():
  facts, file = recorded("one")
  method = methods.make("one", ramp_epochs=facts["rampup"])
  labels, steps = file["labels"], 7
  task = Task(len(labels), 10, len(labels), steps, labels)
  params, state = method.init(None, task, None, None)
  index = np.arange(len(labels), dtype=np.int32)[:, None]
  batch = Batch(index, None, labels[:, None])

  @jax.jit
  def step(branches, step):
    rest = (file[f"gate_{part}"] for part in GATE)
    gate = losses.one_gate(file["features"], *rest)
    every = (*branches, losses.one_ensemble(branches, gate))
    every = tuple(logits[:, None] for logits in every)
    student = Outputs(every[0], branches=every)
    return method.loss(params, state, student, batch, None, step)[0]

  # The epoch of the file begins, and ends.
  for at in (steps * facts["epoch"], steps * (facts["epoch"] + 1) - 1):
    value, gradient = jax.value_and_grad(step)(file["branch_logits"], at)
    near(value, file["total"])
    near(gradient, file["grad_branch_logits"])
  later = step(file["branch_logits"], steps * (facts["epoch"] + 1))
  assert later > file["total"]


@pytest.mark.slow
def test_the_network_shares_its_first_stages_and_gates_its_last():
  images = draw(6, 8, 8, 3)
  model, ensemble = (models.get(f"one_resnet8{end}", 5) for end in ("", "_e"))
  params, state = jax.jit(model.init)(jax.random.key(0), images)
  run = jax.jit(lambda *x: model.apply(*x, train=True))
  outputs, after = run(params, state, images)
  assert [x.shape for x in outputs.branches] == [(6, 5)] * 4
  features = outputs.maps[2].mean((1, 2))
  linear, norm = params["gate.0"], params["gate.1"]
  gate = losses.one_gate(
    features, linear["weight"], linear["bias"], norm["weight"], norm["bias"]
  )
  expected = losses.one_ensemble(jnp.stack(outputs.branches[:3]), gate)
  near(outputs.branches[3], expected)
  assert not np.array_equal(outputs.branches[0], outputs.branches[1])
  evaluated, _ = model.apply(params, after, images, train=False)
  branch = first_branch(params), first_branch(after)
  alone, _ = models.get("resnet8", 5).apply(*branch, images, train=False)
  near(evaluated.logits, alone.logits)
  np.testing.assert_array_equal(evaluated.logits, evaluated.branches[0])
  deployed, _ = ensemble.apply(params, after, images, train=False)
  np.testing.assert_array_equal(deployed.logits, evaluated.branches[3])


def first_branch(tree):
  """What a plain ResNet has of the parameters, or of the statistics."""
  others = ("gate", "branch1", "branch2")
  return {
    key.removeprefix("branch0."): value
    for key, value in tree.items()
    if not key.startswith(others)
  }


def test_without_branches_there_is_nothing_to_learn_from(tmp_path):
  arg = QUICK + "method=one,teacher.source=none"
  with pytest.raises(UserError, match="one_resnet8"):
    run(tmp_path, CNN, arg=arg)
  peers = "--config.peers=('cnn',)"
  with pytest.raises(UserError, match="trains no peers"):
    run(tmp_path, CNN, peers, arg=arg)


@pytest.mark.slow  # a ResNet is compiled
def test_a_run_deploys_a_branch_or_the_ensemble(tmp_path, digits):
  arg = QUICK + "method=one,teacher.source=none,student=one_resnet8"
  for place, name in ((0, ""), (3, "_e")):
    told = run(tmp_path / f"run{name}", arg=arg + name)
    assert told["test_accuracy"] == told["branches_test_accuracy"][place]
    student = ckd_jax.load_student(tmp_path / f"run{name}")
    hits = student(digits.test.inputs).argmax(1) == digits.test.labels
    assert 100 * hits.mean() == pytest.approx(told["test_accuracy"])
