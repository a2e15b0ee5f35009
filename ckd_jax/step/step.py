"""One pure training step: sample, gather, augment, compare, update.

Nothing here touches the host: the step is jitted alone, and can be scanned,
vmapped over seeds, and sharded over any mesh.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ckd_jax import augment as augmentation
from ckd_jax.methods import Batch, Method, Model, Outputs, Task
from ckd_jax.step import optimizer as sgd

_ROWS = 4096  # a table takes up a multiple of it


class State(NamedTuple):
  """Everything that a step changes."""

  step: jax.Array  # int32
  params: Any  # {"student": ..., "method": ...}
  model: Any  # batch statistics of the student
  method: Any  # memory banks, queues, group lists
  optimizer: Any  # momentum, as params
  level: jax.Array  # float32, multiplies the scheduled rate (plateau)


class Examples(NamedTuple):
  """The budgeted images and the teacher's answers: one table on the device."""

  images: jax.Array  # uint8[rows, h, w, c]
  labels: jax.Array  # int32[rows]
  teachers: tuple[Outputs, ...] = ()  # of [rows, ...]
  live: tuple = ()  # weights of the teachers that answer inside the step
  count: jax.Array | None = None  # int32: rows in use; None: as the task says
  index: jax.Array | None = None
  # int32[batch, group]: who is compared, where the host streams; `images` are
  # then theirs alone, [batch, group, h, w, c]


def capacity(count: int) -> int:
  """How many rows a table of `count` takes up: budgets share one program."""
  return -(-count // _ROWS) * _ROWS


def pad(examples: Examples, rows: int) -> Examples:
  """The table with empty rows at its end, and `count`.

  Args:
    examples: NumPy arrays.
    rows: how many there shall be.
  """

  def extend(array):
    widths = [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, widths)

  streamed = len(examples.images) < len(examples.labels)
  return examples._replace(
    images=examples.images if streamed else extend(examples.images),
    labels=extend(examples.labels),
    teachers=jax.tree.map(extend, examples.teachers),
    count=np.int32(len(examples.labels)),
  )


class Live(NamedTuple):
  """Local teachers that answer inside the step, on the student's view."""

  model: Model  # what they have in common
  weights: tuple  # of (params, state), one for each
  mean: tuple[float, ...]
  std: tuple[float, ...]


def forward(model: Model, params, state, images, passes=(), key=None):
  """The student's train-mode outputs.

  Args:
    model: the student.
    params: its parameters.
    state: its batch statistics.
    images: float[batch, group, h, w, c].
    passes: sizes into which the group axis is cut; every piece is a pass of its
      own with its own batch statistics, in this order. () is one pass.
    key: for dropout.

  Returns:
    Outputs of [batch, group, ...], and the new batch statistics.
  """
  pieces = []
  start = 0
  for turn, size in enumerate(passes or (images.shape[1],)):
    piece = images[:, start : start + size]
    start += size
    outputs, state = model.apply(
      params,
      state,
      piece.reshape(-1, *piece.shape[2:]),
      train=True,
      key=None if key is None else jax.random.fold_in(key, turn),
    )
    split = jax.tree.map(
      lambda x, lead=piece.shape[:2]: x.reshape(*lead, *x.shape[1:]), outputs
    )
    pieces.append(split)
  if len(pieces) == 1:
    return pieces[0], state
  return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *pieces), state


def make_update(
  method: Method,
  model: Model,
  transform: optax.GradientTransformation,
  schedule: Callable,
  *,
  live: Live | None = None,
  mean=(),
  std=(),
  trains=None,
) -> Callable:
  """update(state, batch, (prepare_key, method_key, model_key), weights=()).

  Args:
    method: whose loss is descended.
    model: the student.
    transform: gradients to directions; the rate is applied after it.
    schedule: step -> learning rate.
    live: teachers to ask inside the step, in place of the table's answers;
      `update` takes their weights, which would be constants otherwise.
    mean: normalisation of batch.images; needed for `live` only.
    std: likewise.
    trains: tree of bools, as params: what moves at all; None is everything.

  Returns:
    A pure function to (state, metrics), a dict of scalars.
  """
  gradients = make_gradients(method, model, live=live, mean=mean, std=std)

  def update(state: State, batch: Batch, keys, weights=()):
    gradient, (model_state, method_state, metrics) = gradients(
      state, batch, keys, weights
    )
    direction, momentum = transform.update(
      gradient, state.optimizer, state.params
    )
    rate = state.level * schedule(state.step)
    params = sgd.apply(state.params, direction, rate)
    if trains is not None:
      params = jax.tree.map(
        lambda moves, new, old: new if moves else old,
        trains,
        params,
        state.params,
      )
      if not any(jax.tree.leaves(trains["student"])):
        model_state = state.model  # nor do its batch statistics
    new_state = State(
      step=state.step + 1,
      params=params,
      model=model_state,
      method=method_state,
      optimizer=momentum,
      level=state.level,
    )
    return new_state, {**metrics, "learning_rate": rate}

  return update


def make_gradients(
  method: Method, model: Model, *, live: Live | None = None, mean=(), std=()
) -> Callable:
  """As `make_update`; -> (gradient, (batch statistics, memory, metrics))."""

  def ask(images, weights):
    images = augmentation.renormalise(
      images, (mean, std), (live.mean, live.std)
    )
    flat = images.reshape(-1, *images.shape[2:])
    lead = images.shape[:2]
    outputs = tuple(
      live.model.apply(*one, flat, train=False)[0] for one in weights
    )
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), outputs)

  def gradients(state: State, batch: Batch, keys, weights=()):
    prepare_key, method_key, model_key = keys
    batch = method.prepare(prepare_key, batch)
    if live is not None:
      batch = batch._replace(teachers=ask(batch.images, weights))
    batch = batch._replace(teachers=jax.lax.stop_gradient(batch.teachers))

    def objective(params):
      student, model_state = forward(
        model,
        params["student"],
        state.model,
        batch.images,
        method.passes,
        model_key,
      )
      value, (method_state, metrics) = method.loss(
        params["method"], state.method, student, batch, method_key, state.step
      )
      hits = jnp.argmax(student.logits, axis=-1) == batch.labels
      metrics = {"loss": value, "train_accuracy": 100 * hits.mean(), **metrics}
      return value, (model_state, method_state, metrics)

    return jax.grad(objective, has_aux=True)(state.params)

  return gradients


def make_step(
  method: Method,
  task: Task,
  update: Callable,
  augment: Callable,
  *,
  mean,
  std,
  shard: Callable = lambda batch: batch,
) -> Callable:
  """step(state, examples, key) -> (state, metrics).

  Args:
    method: who is compared with whom.
    task: the run as methods see it; its labels are those of the examples.
    update: from `make_update`.
    augment: (key, uint8[n, h, w, c]) -> the same.
    mean: of the channels, in units of pixel / 255.
    std: likewise.
    shard: places a Batch on the mesh.

  Returns:
    A pure function. `key` is the run's key, the same at every step: what is
    random follows from it and from state.step, so a resumed run needs no key.
  """

  def step(state: State, examples: Examples, key: jax.Array):
    index = examples.index
    if index is None:
      run = seen(task, examples)
      index = method.sample(key, state.step, run, state.method)
    step_key = jax.random.fold_in(key, state.step)
    augment_key, *keys = jax.random.split(step_key, 4)
    batch = gather(examples, index)
    batch = shard(batch)
    flat = batch.images.reshape(-1, *batch.images.shape[2:])
    images = augmentation.normalise(augment(augment_key, flat), mean, std)
    batch = batch._replace(images=images.reshape(batch.images.shape))
    return update(state, batch, keys, examples.live)

  return step


def repeat(step: Callable, times: int) -> Callable:
  """`step`, `times` times in one program; its metrics are of [times]."""

  def launch(state: State, examples: Examples, key: jax.Array):
    if times == 1:  # a loop of one costs a CPU dearly
      state, metrics = step(state, examples, key)
      return state, jax.tree.map(lambda x: x[None], metrics)
    return jax.lax.scan(
      lambda state, _: step(state, examples, key), state, length=times
    )

  return launch


def seen(task: Task, examples: Examples) -> Task:
  """The run as a program sees it: what a budget changes is an argument."""
  if examples.count is None:
    return task._replace(labels=examples.labels)
  return task._replace(
    num_examples=examples.count,
    steps_per_epoch=-(-examples.count // task.batch_size),
    labels=examples.labels,
  )


def gather(examples: Examples, index: jax.Array) -> Batch:
  """The rows of the table that `index`, int32[batch, group], names."""
  streamed = examples.index is not None
  return Batch(
    index=index,
    images=examples.images if streamed else examples.images[index],
    labels=examples.labels[index],
    teachers=jax.tree.map(lambda x: x[index], examples.teachers),
  )


def init_state(
  key: jax.Array,
  method: Method,
  task: Task,
  model: Model,
  transform: optax.GradientTransformation,
  examples: Examples,
  *,
  live: Live | None = None,
) -> State:
  """The state before the first step.

  Args:
    key: the run's key.
    method: gives its heads and memories.
    task: as in `make_step`.
    model: the student.
    transform: of the optimizer.
    examples: for shapes, and for what the teacher answers.
    live: the teachers inside the step, if there are any.
  """
  model_key, method_key = jax.random.split(key)
  # float zeros: only the shape counts, and the group's size is 1 or more.
  images = jnp.zeros((1, *examples.images.shape[1:]), jnp.float32)
  params, model_state = model.init(model_key, images)

  def sample_of(network, params, state):
    outputs = jax.eval_shape(
      lambda images: network.apply(params, state, images, train=False)[0],
      images,
    )
    return jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), outputs)

  student = sample_of(model, params, model_state)
  if student.logits.shape[-1] != task.num_classes:
    raise ValueError(
      f"the student has {student.logits.shape[-1]} logits and there are "
      f"{task.num_classes} classes"
    )
  if live is not None:
    teacher = sample_of(live.model, *examples.live[0])
  elif examples.teachers:
    teacher = jax.tree.map(lambda x: x[:1][None], examples.teachers[0])
  else:
    teacher = Outputs(jnp.zeros_like(student.logits))
  method_params, method_state = method.init(
    method_key, seen(task, examples), student, teacher
  )
  params = {"student": params, "method": method_params}
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model=model_state,
    method=method_state,
    optimizer=transform.init(params),
    level=jnp.ones((), jnp.float32),
  )
