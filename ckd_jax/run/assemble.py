"""Everything that the loop needs: its programs, and what they are fed with."""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ckd_jax import teacher
from ckd_jax.data import Dataset, subset
from ckd_jax.data.budget import Selection
from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Model
from ckd_jax.run import programs
from ckd_jax.run.answers import Answers
from ckd_jax.run.plan import Plan
from ckd_jax.run.programs import Programs, default_launch
from ckd_jax.run.stages import Phase
from ckd_jax.step import (
  Examples,
  State,
  capacity,
  evaluate,
  forward,
  gather,
  pad,
  stream,
)
from ckd_jax.step.sharding import host_device, streams
from ckd_jax.system import hosts


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
  rate = config.optimizer.learning_rate
  shared = (
    like.programs if like else programs.make(settled, mesh, answers.live, rate)
  )
  scale = rate / shared.learning_rate
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
  before, state = programs.phases(
    settled, mesh, answers.live, state, examples, key
  )

  def feed(key, method_state, first):
    copy = jax.device_get((jax.random.key_data(key), method_state))
    # By the processor: a device would draw after all steps that wait for it.
    key, memory = jax.device_put(copy, host_device())
    draw = jax.jit(
      lambda key, memory, step: method.sample(
        jax.random.wrap_key_data(key), step, task, memory
      )
    )
    index_of = functools.partial(draw, key, memory)

    def fetch(rows):
      images = settled.images[rows]
      return student_images(config, images, ids[rows], answers)

    return stream.batches(
      examples, first, index_of, fetch, over_data, everywhere
    )

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
