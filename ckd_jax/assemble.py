"""Everything that the loop needs: the jitted step, and its table on devices."""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ckd_jax import data, evaluate, hosts, stages, stream, teacher
from ckd_jax.answers import Answers
from ckd_jax.budget import Selection
from ckd_jax.data import Dataset, subset
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Model
from ckd_jax.plan import Plan, begin, gradients_of, staged, step_of
from ckd_jax.stages import Phase
from ckd_jax.step import (
  Examples,
  State,
  capacity,
  forward,
  gather,
  pad,
  repeat,
)

_LAUNCH = 32  # steps a launch on an accelerator, which then never waits for us


class Programs(NamedTuple):
  """What is compiled; runs that differ in seed, budget or rate share it."""

  begin: Callable  # jitted (key, examples) -> State
  step: Callable  # (state, examples, key) -> (state, metrics), not jitted
  launch: Callable
  # (times) -> jitted (state, examples, key) -> (state, metrics of [times])
  forward: Callable  # (params, state, uint8 images) -> logits, not jitted
  predict: Callable  # (params, state, evaluate.Images) -> logits on the host
  learning_rate: float  # of the schedule in it


class Fit(NamedTuple):
  """What the loop works with and does not change."""

  programs: Programs
  scale: float  # of the learning rate, over that of the programs
  longest: int  # steps in a launch, at most
  feed: Callable | None
  # (key, state of the method, step) -> the Examples of each step from there on,
  # where images do not lie on the devices
  stages: tuple[Phase, ...]  # what comes before it
  transform: optax.GradientTransformation
  examples: Examples
  key: jax.Array
  state: State  # before the first step
  model: Model
  images: dict[str, evaluate.Images]  # train, validation (if any), test
  labels: dict[str, np.ndarray]  # int32[n], the same
  target: np.ndarray | None  # [classes]: the mean that a fitted offset meets
  primary: str  # "none" or "fit": how the reported student is judged
  bias: tuple[str, ...] | None  # the leaf that takes up a fitted offset
  origin: dict[str, str]  # what the images and the answers are
  num_train: int
  num_classes: int
  images_per_step: int
  mesh: Mesh
  everywhere: NamedSharding  # a copy on every device

  @property
  def launch(self) -> Callable:
    return self.programs.launch

  @property
  def predict(self) -> Callable:
    return self.programs.predict

  @property
  def one_at_a_time(self) -> bool:
    """Whether a step must end before the next one is launched.

    CPU devices share one thread pool: with several steps in flight, all of its
    threads can end up waiting in all-reduces of different steps.
    """
    return self.mesh.size > 1 and self.mesh.devices.flat[0].platform == "cpu"


def streams(config, images) -> bool:
  """Whether these images stay with the host."""
  if config.dataset.placement != "auto":
    return config.dataset.placement == "stream"
  limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
  limit = limit or data.memory()  # a CPU shares it with the host
  return math.prod(images.shape) > limit / 2


def default_launch() -> int:
  """Steps a launch: a loop inside a program costs a CPU dearly."""
  return 1 if jax.default_backend() == "cpu" else _LAUNCH


def make_mesh(batch_size: int, students: int = 1) -> Mesh:
  """All devices, or as many as divide the batch, as (students, data).

  Args:
    batch_size: of one student, divided over the axis `data`.
    students: trained at once; as many devices as divide their number make the
      axis `students`.

  Raises:
    UserError: on several hosts every device must have its share.
  """
  devices = jax.devices()
  rows = math.gcd(students, len(devices))
  each = len(devices) // rows
  count = max(n for n in range(1, each + 1) if batch_size % n == 0)
  if count < each and jax.process_count() > 1:
    raise UserError(
      f"batch_size {batch_size} is not a multiple of the {len(devices)} devices"
    )
  # Explicit axes, the default, break Linen convolutions.
  return jax.make_mesh(
    (rows, count),
    ("students", "data"),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices[: rows * count],
  )


def divider(mesh: Mesh) -> Callable:
  """(batch) -> the same, its rows divided over the axis `data`."""

  def shard(batch: Batch) -> Batch:
    # Inside a shard_map over `students` that axis is of another kind.
    inside = jax.sharding.get_abstract_mesh()
    here = inside if "students" in inside.manual_axes else mesh
    rows = NamedSharding(here, PartitionSpec("data"))
    return jax.lax.with_sharding_constraint(batch, rows)

  return shard


def assemble(
  config,
  dataset: Dataset,
  chosen: Selection,
  settled: Plan,
  answers: Answers,
  mesh: Mesh,
  *,
  like: Fit | None = None,
) -> Fit:
  """Jits the step and puts the budgeted images and answers on the devices.

  Args:
    config: of the run.
    dataset: of the run.
    chosen: which of its images are used.
    settled: from `plan`.
    answers: of the teacher.
    mesh: the devices.
    like: a run that differs in seed, budget or rate alone: nothing of its
      programs is compiled again.

  Raises:
    UserError: the method cannot work with these answers.
  """
  everywhere = NamedSharding(mesh, PartitionSpec())
  over_data = NamedSharding(mesh, PartitionSpec("data"))
  method, model, task = settled.method, settled.model, settled.task
  ids = dataset.train.ids[chosen.train]
  streamed = streams(config, settled.images)
  images = settled.images[:1] if streamed else settled.images[:]
  if not streamed:
    images = student_images(config, images, ids, answers)
  examples = Examples(
    images,
    task.labels,
    answers.outputs,
    () if answers.live is None else answers.live.weights,
  )
  examples = pad(examples, capacity(task.num_examples))
  examples = hosts.put(examples, everywhere)
  keys = jax.random.split(jax.random.key(config.seed))
  init_key, key = hosts.put(tuple(keys), everywhere)
  where = {
    "live": answers.live,
    "shard": divider(mesh),
  }

  def compiled(settled, trains=None):
    step = step_of(settled, trains=trains, **where)

    @functools.cache
    def launch(times: int):
      return jax.jit(
        repeat(step, times), donate_argnums=0, out_shardings=everywhere
      )

    return launch

  def gradients(settled, state):
    part = jax.jit(gradients_of(settled, **where), out_shardings=everywhere)
    return part(state, examples, key)[0]

  def programs():
    forward = evaluate.make_forward(model, mean=settled.mean, std=settled.std)
    return Programs(
      begin=jax.jit(
        lambda key, examples: begin(settled, key, examples, answers.live),
        out_shardings=everywhere,
      ),
      step=step_of(settled, **where),
      launch=compiled(settled),
      forward=forward,
      predict=evaluate.make_predict(forward, everywhere),
      learning_rate=config.optimizer.learning_rate,
    )

  shared = like.programs if like else programs()
  scale = config.optimizer.learning_rate / shared.learning_rate
  try:
    state = shared.begin(init_key, examples)
    index = jax.eval_shape(
      lambda key: method.sample(key, 0, task, state.method), key
    )
  except ValueError as error:
    raise UserError(f"method {config.method}: {error}") from error
  seen = jax.eval_shape(
    lambda *x: method.prepare(key, gather(*x)), examples, index
  ).images
  check_finite(config, method, state, model, examples, index.shape)
  before, state = phases(settled, state, compiled, gradients)

  def feed(key, method_state, first):
    copy = jax.device_get((jax.random.key_data(key), method_state))
    key, method_state = jax.tree.map(jnp.asarray, copy)  # of this host alone
    key = jax.random.wrap_key_data(key)
    draw = jax.jit(lambda step: method.sample(key, step, task, method_state))

    def fetch(rows):
      images = settled.images[rows]
      return student_images(config, images, ids[rows], answers)

    return stream.batches(examples, first, draw, fetch, over_data, everywhere)

  target = None
  if answers.live is None:
    target = method.offset_target(
      Batch(None, None, labels=task.labels, teachers=answers.outputs)
    )
  places = {
    "train": (settled.images, task.labels),
    "validation": (
      subset(dataset.train.images, chosen.validation),
      dataset.train.labels[chosen.validation],
    ),
    "test": (dataset.test.images, dataset.test.labels),
  }
  placed = {
    name: evaluate.place(
      images, mesh, stream=streamed or streams(config, images)
    )
    for name, (images, _) in places.items()
    if len(images) and not (like and name == "test")
  }
  return Fit(
    programs=shared,
    scale=scale,
    longest=1 if streamed else config.steps_per_launch or default_launch(),
    feed=feed if streamed else None,
    stages=before,
    transform=settled.transform,
    examples=examples,
    key=key,
    state=hosts.put(state._replace(level=np.float32(scale)), everywhere),
    model=model,
    images=placed | ({"test": like.images["test"]} if like else {}),
    labels={name: labels for name, (_, labels) in places.items()},
    target=None if target is None else np.asarray(target).mean(0),
    primary=config.hyper.get("offset", "none"),
    bias=settled.bias,
    origin={
      "images": dataset.train.fingerprint,
      "answers": fingerprint(answers),
    },
    num_train=task.num_examples,
    num_classes=task.num_classes,
    images_per_step=math.prod(seen.shape[:2]),
    mesh=mesh,
    everywhere=everywhere,
  )


def fingerprint(answers: Answers) -> str:
  """Of what is learned from: a resumed run must not learn from another."""
  digest = hashlib.sha256(answers.teacher.encode())
  for leaf in jax.tree.leaves(answers.outputs):
    digest.update(np.ascontiguousarray(leaf))
  return digest.hexdigest()


def phases(settled: Plan, state: State, compiled, gradients):
  """The stages, compiled, and the state that the main part begins with.

  Args:
    settled: the run.
    state: before everything.
    compiled: (plan, trains) -> jitted step.
    gradients: (plan, state) -> gradient of its first batch.
  """
  made = []
  for stage in settled.method.stages:
    part = staged(settled, stage)
    # What the loss does not reach must not be decayed either. Judged at random
    # weights: a zero among the first ones may hide what is reached later.
    elsewhere = state._replace(params=jitter(state.params))
    trains = jax.tree.map(
      lambda leaf: bool(np.any(np.asarray(leaf))), gradients(part, elsewhere)
    )
    if not stage.trains_student:
      student = jax.tree.map(lambda moves: False, trains["student"])
      trains = {**trains, "student": student}
    steps = stage.epochs * settled.task.steps_per_epoch
    made.append(Phase(stage, compiled(part, trains), steps, state))
    state = stages.finish(stage, state, settled.transform)
  return tuple(made), state


def jitter(params):
  """The same tree with noise added to every leaf."""
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(0), len(leaves))
  noisy = [
    leaf + 0.1 * jax.random.normal(key, leaf.shape, leaf.dtype)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(structure, noisy)


def student_images(config, images, ids, answers: Answers) -> np.ndarray:
  """What the student's step begins with: the images, or the teacher's view."""
  if config.student_view == "fresh" or answers.view == "clean":
    return images
  return teacher.augmented(
    images, ids, seed=answers.view_seed, pad=answers.view_pad
  )


def check_finite(config, method, state, model, examples, shape) -> None:
  """A loss that cannot take a class ruled out (-inf) says so before it runs."""
  if not examples.teachers:
    return
  finite = np.isfinite(np.asarray(examples.teachers[0].logits)).all(-1)
  if finite.all():
    return
  rows = np.resize(np.flatnonzero(~finite), shape)
  # Of this host, and indexed as the devices do where images are streamed.
  state, examples = jax.tree.map(jnp.asarray, jax.device_get((state, examples)))

  @jax.jit
  def of_these(state, examples):
    key = jax.random.key(0)
    batch = gather(examples, rows)
    batch = batch._replace(images=jnp.zeros(batch.images.shape))
    batch = method.prepare(key, batch)
    params = state.params
    student, _ = forward(
      model, params["student"], state.model, batch.images, method.passes
    )
    return method.loss(params["method"], state.method, student, batch, key, 0)

  if not np.isfinite(of_these(state, examples)[0]):
    raise UserError(
      f"{(~finite).sum()} answers rule classes out (-inf), which "
      f"{config.method!r} cannot match: kd takes them, its loss is defined by "
      "probabilities"
    )
