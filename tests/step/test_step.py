"""The step follows the public implementation, on one device and on four."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ckd_jax import augment, methods, models, torch_weights
from ckd_jax.data import ImageView
from ckd_jax.methods import Batch, Model, Outputs, Task
from ckd_jax.step import (
  Examples,
  Live,
  Recipe,
  State,
  capacity,
  init_state,
  make_step,
  make_update,
  optimizer,
  pad,
  runtime_task,
)
from tests.helpers.runs import linear

SLOW = pytest.mark.slow
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def formula_weights(shapes, seed):
  """Weights that both implementations can make from nothing but names."""
  tensors = {}
  for name, shape in shapes.items():
    r = np.random.default_rng(zlib.crc32(f"{seed}/{name}".encode()))
    if name.endswith("num_batches_tracked"):
      value = np.zeros(shape)
    elif name.endswith("running_var"):
      value = r.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
      value = r.normal(size=shape) * 0.1
    elif len(shape) == 1 and name.endswith("weight"):
      value = r.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:
      value = r.normal(size=shape) * 0.1
    else:
      value = r.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    tensors[name] = np.asarray(value, np.float32)
  return tensors


def six_steps(update, state, file, group, noise):
  """The losses, and the last state, on the recorded batches.

  Args:
    update: jitted.
    state: before the first step.
    file: the record.
    group: [2, 8, ...] -> [batch, group, ...].
    noise: float, by which pixels are multiplied at random, give or take.
  """
  keys = tuple(jax.random.split(jax.random.key(0), 3))
  draw = np.random.default_rng(0)
  losses = []
  for i in range(6):
    images = np.moveaxis(file["x"][i], -3, -1)
    images = images * (1 + noise * draw.normal(size=images.shape)).astype("f4")
    batch = Batch(
      index=group(np.arange(16).reshape(2, 8)),
      inputs=group(images),
      labels=group(file["labels"][i].astype(np.int32)),
      teachers=(Outputs(group(file["teacher"][i])),),
    )
    state, metrics = update(state, batch, keys)
    losses.append(float(metrics["loss"]))
  return losses, state


@pytest.mark.parametrize(
  "name", [pytest.param("supervised", marks=SLOW), "ckd"]
)
def test_six_steps_follow_pytorch(golden, name):
  facts = json.loads((golden / f"train/resnet8_{name}.json").read_text())
  file = np.load(golden / f"train/resnet8_{name}.npz", allow_pickle=False)
  weights = formula_weights(facts["state"], facts["seed"])
  params, model_state = torch_weights.convert("resnet8", weights)
  model = models.get("resnet8", facts["num_classes"])
  # supervised: one pass over all 16 as a batch of singles; ckd: 8 pairs.
  group = (
    (lambda a: a.reshape(16, 1, *a.shape[2:]))
    if name == "supervised"
    else (lambda a: np.swapaxes(a, 0, 1))
  )
  method = methods.make(name)
  transform = optimizer.sgd(0.9, 5e-4)
  rate = lambda step: jnp.float32(0.05)  # noqa: E731
  update = make_update(Recipe(method, model, None, None, transform, rate))
  state = State(
    jnp.int32(0),
    {"student": params, "method": {}},
    model_state,
    {},
    transform.init({"student": params, "method": {}}),
    jnp.float32(1),
  )
  update = jax.jit(update)
  apply = jax.jit(model.apply, static_argnames="train")
  images = np.moveaxis(file["x"][0], -3, -1).reshape(16, 32, 32, 3)
  # One activation lies so close to the edge of its ReLU that rounding decides
  # its side, and the processor the rounding. Both sides are within 1e-2; the
  # recorded one must be met when the pixels move by the last digit.
  distances = []
  for noise in (0.0, 1e-7, 2e-7, 3e-7, 4e-7, 5e-7):
    losses, after = six_steps(update, state, file, group, noise)
    np.testing.assert_allclose(losses, file["loss"], rtol=1e-3, atol=1e-4)
    params = after.params["student"]
    outputs, _ = apply(params, after.model, images, train=False)
    distances.append(np.abs(outputs.logits - file["logits_end"]).max())
    if distances[-1] < 1e-3:
      break
  assert max(distances) < 1e-2 and distances[-1] < 1e-3, distances
  for ours, theirs in (
    (after.model["bn1"]["running_mean"], "bn1.running_mean"),
    (after.model["bn1"]["running_var"], "bn1.running_var"),
    (params["fc"]["bias"], "fc.bias"),
    (params["bn1"]["weight"], "bn1.weight"),
  ):
    np.testing.assert_allclose(
      ours, file[f"end/{theirs}"], rtol=1e-3, atol=1e-4
    )


def small_run(
  method, mesh=None, live=None, padded=None, model=None, trainable=None
):
  """A step over random images; the examples and the state it begins with."""
  rng, rows, batch_size = np.random.default_rng(0), 40, 16
  labels = rng.integers(0, 5, rows).astype(np.int32)
  teacher = Outputs(rng.normal(size=(rows, 5)).astype(np.float16))
  images = rng.integers(0, 256, (rows, 8, 8, 3), np.uint8)
  answers = ((), live.weights) if live else ((teacher,), ())
  examples = Examples(images, labels, *answers)
  if padded:
    examples = pad(examples, padded)
  recipe = Recipe(
    method,
    model or models.get("cnn", 5),
    task=Task(rows, 5, batch_size, 3, labels),
    view=ImageView((8, 8, 3), MEAN, STD, augment.make("crop_flip", 1)),
    transform=optimizer.sgd(0.9, 5e-4),
    schedule=lambda step: jnp.float32(0.1),
  )
  shard = lambda batch: batch  # noqa: E731
  if mesh is not None:
    over_data = NamedSharding(mesh, PartitionSpec("data"))
    shard = lambda x: jax.lax.with_sharding_constraint(x, over_data)  # noqa: E731
    everywhere = NamedSharding(mesh, PartitionSpec())
    examples = jax.device_put(examples, everywhere)
  key = jax.random.key(3)
  state = jax.jit(lambda key: init_state(key, recipe, examples, live=live))(key)
  if mesh is not None:
    state = jax.device_put(state, everywhere)
  step = make_step(recipe, live=live, shard=shard, trainable=trainable)
  return jax.jit(step), state, examples, key


@pytest.mark.parametrize(
  "estimator",
  ["all", *(pytest.param(e, marks=SLOW) for e in ("batch_groups", "groups"))],
)
def test_one_and_four_devices_agree(estimator):
  method = methods.make(
    "ckd", estimator=estimator, positives=2, max_groups=200, groups_per_batch=64
  )
  results = []
  for count in (1, 4):
    mesh = jax.make_mesh(
      (count,),
      ("data",),
      axis_types=(AxisType.Auto,),
      devices=jax.devices()[:count],
    )
    step, state, examples, key = small_run(method, mesh=mesh)
    for _ in range(3):
      state, metrics = step(state, examples, key)
    results.append((state.params, state.model, metrics))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    *results,
  )


@SLOW  # tests/run/test_loop.py launches several steps at once, in a whole run
def test_scan_gives_the_same_steps():
  step, state, examples, key = small_run(methods.make("kd"))
  scanned, _ = jax.lax.scan(
    lambda state, _: step(state, examples, key), state, length=3
  )
  for _ in range(3):
    state, _ = step(state, examples, key)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    scanned.params,
    state.params,
  )


def test_the_two_sides_are_separate_passes_in_this_order():
  """Running statistics move twice a step: by the positives, then again."""
  # Fixed pairs in place of a list of groups, which takes long to compile.
  index = jnp.arange(32).reshape(16, 2)
  method = methods.make("ckd")._replace(
    init=lambda *args: ({}, {}), sample=lambda *args: index
  )
  step, state, examples, key = small_run(method)
  before = state.model["bn1"]["running_mean"]
  after, _ = step(state, examples, key)
  one_pass, _ = small_run(method._replace(passes=()))[0](state, examples, key)
  assert not np.allclose(
    after.model["bn1"]["running_mean"],
    one_pass.model["bn1"]["running_mean"],
    atol=1e-6,
  )
  assert not np.allclose(before, after.model["bn1"]["running_mean"])


def test_a_live_teacher_sees_the_students_view_with_its_own_normalisation():
  teacher = models.get("cnn", 5)
  params, state = teacher.init(jax.random.key(9), jnp.zeros((1, 8, 8, 3)))
  seen = []

  def apply(params, state, images, *, train, key=None):
    jax.debug.callback(lambda x: seen.append(np.array(x)), images)
    assert not train
    return teacher.apply(params, state, images, train=train)

  view = ImageView((8, 8, 3), (0.0,) * 3, (1.0,) * 3)
  live = Live(teacher._replace(apply=apply), ((params, state),), view)
  step, state, examples, key = small_run(methods.make("kd"), live=live)
  _, metrics = step(state, examples, key)
  jax.effects_barrier()
  pixels = seen[-1] * 255
  np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-2)
  assert np.isfinite(metrics["kd"]) and metrics["kd"] > 0
  # Its weights are an argument: others are heard without compiling again.
  other = jax.tree.map(lambda x: 2 * x, examples.live)
  _, heard = step(state, examples._replace(live=other), key)
  assert heard["kd"] != metrics["kd"]
  assert step._cache_size() == 1


@SLOW
@pytest.mark.parametrize("name", ["kd", "ckd", "mixup"])
def test_empty_rows_of_a_padded_table_change_nothing(name):
  method = methods.make(name)
  step, state, examples, key = small_run(method)
  plain, metrics = step(state, examples, key)
  padded = pad(jax.device_get(examples), 64)
  assert padded.inputs.shape[0] == 64 and padded.count == 40
  step, state, _, key = small_run(method, padded=64)
  filled, same = step(state, padded, key)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    (plain.params, metrics),
    (filled.params, same),
  )


def test_every_step_draws_its_own_crops():
  """The same images twice: only the number of the step differs."""
  rows = jnp.arange(16).reshape(16, 1)
  method = methods.make("kd")._replace(sample=lambda *args: rows)
  step, state, examples, key = small_run(method, model=linear(5))
  losses = [
    float(step(state._replace(step=jnp.int32(turn)), examples, key)[1]["loss"])
    for turn in (0, 1, 2, 0)
  ]
  assert len(set(losses[:3])) == 3
  assert losses[3] == losses[0]


def counting(num_classes):
  """A linear student that counts its passes in its state."""
  init, apply = linear(num_classes)

  def counted(params, state, images, **options):
    outputs, _ = apply(params, {}, images, **options)
    return outputs, {"passes": state["passes"] + 1}

  return Model(
    lambda *args: (init(*args)[0], {"passes": jnp.int32(0)}), counted
  )


def test_a_level_multiplies_the_rate():
  step, state, examples, key = small_run(methods.make("kd"), model=linear(5))
  moves = []
  for level in (1.0, 0.1):
    after, metrics = step(
      state._replace(level=jnp.float32(level)), examples, key
    )
    np.testing.assert_allclose(metrics["learning_rate"], 0.1 * level)
    moved = after.params["student"]["bias"] - state.params["student"]["bias"]
    moves.append(np.asarray(moved))
  np.testing.assert_allclose(moves[1], 0.1 * moves[0], rtol=1e-5)
  assert np.abs(moves[0]).max() > 1e-3


@pytest.mark.parametrize("moving", [("weight", "bias"), ("bias",), ()])
def test_what_is_frozen_stays(moving):
  """Parameters one by one; the statistics with the last of them."""
  trainable = {
    "student": {name: name in moving for name in ("weight", "bias")},
    "method": {},
  }
  step, state, examples, key = small_run(
    methods.make("kd"), model=counting(5), trainable=trainable
  )
  after, _ = step(state, examples, key)
  for name, before in state.params["student"].items():
    moved = (after.params["student"][name] != before).any()
    assert moved == (name in moving), name
  assert after.model["passes"] == (1 if moving else 0)


def test_an_epoch_has_a_step_for_the_last_images():
  task = Task(40, 5, 16, 3, np.zeros(40, np.int32))
  for count, steps in ((16, 1), (17, 2), (40, 3), (48, 3), (49, 4)):
    examples = Examples(None, task.labels, count=np.int32(count))
    found = runtime_task(task, examples)
    assert (found.num_examples, found.steps_per_epoch) == (count, steps)


def test_budgets_share_one_program():
  step, state, examples, key = small_run(methods.make("kd"), padded=64)
  rows = jax.device_get(examples)
  for count in (40, 25, 17):
    state, _ = step(state, rows._replace(count=np.int32(count)), key)
  assert step._cache_size() == 1
  assert [capacity(n) for n in (1, 4096, 4097)] == [4096, 4096, 8192]
