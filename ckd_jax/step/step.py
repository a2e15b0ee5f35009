"""One pure training step: sample, gather, show, compare, update.

Nothing here touches the host: the step is jitted alone, and can be scanned,
vmapped over seeds, and sharded over any mesh.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from ckd_jax.data import View
from ckd_jax.methods import Adapter, Ask, Batch, Method, Model, Outputs, Task
from ckd_jax.numerics import mean_counted
from ckd_jax.step import optimizer
from ckd_jax.step.state import Examples, Live, State, gather, runtime_task


class Recipe(NamedTuple):
  """The parts of a step, fixed while it is traced.

  Attributes:
    method: samples the images to compare, and computes the loss.
    model: architecture of the student.
    task: sizes and labels that a method may read.
    view: what a network is shown of the inputs: images are augmented and
      normalised, tokens are as they are.
    transform: gradients to directions; the learning rate is applied after it.
    schedule: int32 step -> float32 learning rate.
  """

  method: Method
  model: Model
  task: Task
  view: View
  transform: optax.GradientTransformation
  schedule: Callable[[jax.Array], jax.Array]


class Update(Protocol):
  """Descends the loss of one batch."""

  def __call__(
    self, state: State, batch: Batch, keys: tuple, weights: tuple = ()
  ) -> tuple[State, dict[str, jax.Array]]:
    """Returns the next state and metrics, scalars by name.

    Args:
      state: before the step.
      batch: arrays [batch, group, ...]; inputs as the student is shown them.
      keys: (prepare_key, method_key, model_key) of this step.
      weights: (params, state) of each live teacher; () without any.
    """
    ...


class Step(Protocol):
  """(state, examples, key) -> (state, metrics), pure.

  `key` is the same at every step: all random numbers follow from it and from
  `state.step`, so checkpoints need no key.
  """

  def __call__(
    self, state: State, examples: Examples, key: jax.Array
  ) -> tuple[State, dict[str, jax.Array]]: ...


def make_step(
  recipe: Recipe,
  *,
  live: Live | None = None,
  shard: Callable[[Batch], Batch] = lambda batch: batch,
  trainable: Any = None,
) -> Step:
  """Makes the step of a run, not yet jitted.

  Args:
    recipe: the parts of the step.
    live: teachers that answer inside the step, in place of the table.
    shard: distributes a Batch over the mesh.
    trainable: tree of bools shaped as `State.params`, true for leaves that are
      trained; None is all of them.
  """
  update = make_update(recipe, live=live, trainable=trainable)

  def step(state: State, examples: Examples, key: jax.Array):
    index = examples.index
    if index is None:
      task = runtime_task(recipe.task, examples)
      index = recipe.method.sample(key, state.step, task, state.method)
    step_key = jax.random.fold_in(key, state.step)
    view_key, *keys = jax.random.split(step_key, 4)
    batch = shard(gather(examples, index))
    shown = recipe.view(view_key, flatten(batch.inputs))
    batch = batch._replace(inputs=unflatten(shown, index.shape))
    return update(state, batch, tuple(keys), examples.live)

  return step


def make_update(
  recipe: Recipe, *, live: Live | None = None, trainable: Any = None
) -> Update:
  """Makes the part of a step that comes after the batch is drawn.

  Args:
    recipe: the parts of the step; sampling and augmentation are not used.
    live: teachers that answer inside the step, whose weights the update takes.
    trainable: as in `make_step`.
  """
  method, model = recipe.method, recipe.model

  def update(state: State, batch: Batch, keys, weights=()):
    prepare_key, method_key, model_key = keys
    batch = method.prepare(prepare_key, batch)
    if method.compose is not None:
      ask = _networks(recipe, state, live, weights)
      batch = method.compose(prepare_key, batch, ask)
      batch = jax.lax.stop_gradient(batch)
    if live is not None and method.adapter is None:
      batch = batch._replace(teachers=_ask(live, weights, recipe, batch.inputs))
    batch = batch._replace(teachers=jax.lax.stop_gradient(batch.teachers))

    def objective(params):
      seen = _answered_online(live, weights, recipe, batch, params["method"])
      student, model_state = forward(
        model,
        params["student"],
        state.model,
        batch.inputs,
        method.passes,
        model_key,
      )
      value, (method_state, metrics) = method.loss(
        params["method"], state.method, student, seen, method_key, state.step
      )
      hits = jnp.argmax(student.logits, axis=-1) == batch.labels
      hits = mean_counted(hits, batch.labels)
      metrics = {"loss": value, "train_accuracy": 100 * hits, **metrics}
      return value, (model_state, method_state, metrics)

    gradient, (model_state, method_state, metrics) = jax.grad(
      objective, has_aux=True
    )(state.params)
    direction, moments = recipe.transform.update(
      gradient, state.optimizer, state.params
    )
    direction = _scaled(direction, method.adapter)
    rate = state.level * recipe.schedule(state.step)
    params = optimizer.apply(state.params, direction, rate)
    if trainable is not None:
      params = _only(trainable, params, state.params)
      if not any(jax.tree.leaves(trainable["student"])):
        model_state = state.model  # batch statistics stay, too
    new_state = State(
      step=state.step + 1,
      params=params,
      model=model_state,
      method=method_state,
      optimizer=moments,
      level=state.level,
    )
    return new_state, {**metrics, "learning_rate": rate}

  return update


def _networks(
  recipe: Recipe, state: State, live: Live | None, weights: tuple
) -> Ask:
  """The networks as they stand before a step."""
  params, own = jax.lax.stop_gradient((state.params["student"], state.model))

  def student(inputs):
    return recipe.model.apply(params, own, inputs, train=False)[0]

  def teacher(inputs):
    assert live is not None
    seen = live.view.renewed(inputs, recipe.view)
    first, *_ = jax.lax.stop_gradient(weights)
    return live.model.apply(*first, seen, train=False)[0]

  return Ask(student, student if live is None else teacher)


def _answered_online(
  live: Live | None, weights: tuple, recipe: Recipe, batch: Batch, params: Any
) -> Batch:
  """The batch with answers of a teacher that is trained; or as it is."""
  adapter = recipe.method.adapter
  if live is None or adapter is None:
    return batch
  (first, state), *others = jax.lax.stop_gradient(weights)
  adapted = (adapter.apply(params["adapter"], first), state), *others
  answers = _ask(live, adapted, recipe, batch.inputs)
  return batch._replace(teachers=answers)


def _scaled(direction: Any, adapter: Adapter | None) -> Any:
  """The direction, of an adapter shortened: Adam undoes a shorter gradient."""
  method = direction["method"]
  if adapter is None or "adapter" not in method:
    return direction
  moves = jax.tree.map(lambda x: adapter.rate * x, method["adapter"])
  return {**direction, "method": {**method, "adapter": moves}}


def _ask(live: Live, weights: tuple, recipe: Recipe, inputs: Any):
  """The live teachers' Outputs about what the student is shown.

  Args:
    live: their architecture and their own view.
    weights: (params, state) of each.
    recipe: whose view made the inputs.
    inputs: a tree of [batch, group, ...].
  """
  inputs = live.view.renewed(inputs, recipe.view)
  lead = jax.tree.leaves(inputs)[0].shape[:2]
  flat = flatten(inputs)
  outputs = tuple(
    live.model.apply(*one, flat, train=False)[0] for one in weights
  )
  return unflatten(outputs, lead)


def flatten(tree):
  """Every leaf [batch, group, ...] as [batch * group, ...]."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def unflatten(tree, lead: tuple[int, ...]):
  """Every leaf [batch * group, ...] as [batch, group, ...]."""
  return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), tree)


def _only(trainable, new, old):
  """The new leaves where `trainable` is true, the old ones elsewhere."""
  return jax.tree.map(
    lambda moves, new, old: new if moves else old, trainable, new, old
  )


def forward(
  model: Model, params, state, inputs, passes=(), key=None
) -> tuple[Outputs, Any]:
  """The student's train-mode outputs.

  Args:
    model: architecture of the student.
    params: its parameters.
    state: its batch statistics.
    inputs: a tree of [batch, group, ...], as it is shown them.
    passes: sizes into which the group axis is cut; every piece is a separate
      pass with its own batch statistics, in this order. () is one pass.
    key: random key for dropout; None without dropout.

  Returns:
    Outputs of [batch, group, ...], and the new batch statistics.
  """
  pieces = []
  start = 0
  batch, group = jax.tree.leaves(inputs)[0].shape[:2]
  for turn, size in enumerate(passes or (group,)):
    piece = jax.tree.map(
      lambda x, first=start, size=size: x[:, first : first + size], inputs
    )
    start += size
    outputs, state = model.apply(
      params,
      state,
      flatten(piece),
      train=True,
      key=None if key is None else jax.random.fold_in(key, turn),
    )
    pieces.append(unflatten(outputs, (batch, size)))
  if len(pieces) == 1:
    return pieces[0], state
  return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *pieces), state


def repeat(step: Step, times: int) -> Step:
  """Repeats a step in one program; metrics are [times].

  Args:
    step: from `make_step`.
    times: number of steps.
  """

  def launch(state: State, examples: Examples, key: jax.Array):
    if times == 1:  # a loop of one step is slow on a CPU
      state, metrics = step(state, examples, key)
      return state, jax.tree.map(lambda x: x[None], metrics)
    return jax.lax.scan(
      lambda state, _: step(state, examples, key), state, length=times
    )

  return launch
