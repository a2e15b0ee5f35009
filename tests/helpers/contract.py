"""A method for the contract test: jitted, on random networks."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import methods
from ckd_jax.methods import Batch, Method, Mixed, Outputs, Task
from tests.helpers.arrays import draw
from tests.helpers.texts import VIEW, tokens

CLASSES, EXAMPLES, ROWS, BATCH = 5, 22, 24, 8


class Case(NamedTuple):
  name: str
  hyper: dict[str, Any]
  method: Method
  task: Task
  params: Any
  state: Any
  sample: Callable  # jitted: (num_examples, step, state) -> index
  show: Callable  # jitted: index -> batch, as the step prepares it
  batch: Batch
  trains_student: bool
  stage: bool
  loss: Callable  # (params, student, batch) -> (loss, (state, metrics))
  graded: Callable  # the same, jitted: (value, auxiliary), gradients of all
  traces: list[None]  # one for every time that `graded` was traced


@functools.partial(jax.jit, static_argnums=(1, 2))
def answer(inputs, seed, dtype="float32") -> Outputs:
  """A network of random linear maps: one answer per input, of every kind."""
  pixels = isinstance(inputs, jax.Array) and inputs.ndim > 3
  flat = inputs if pixels else counts(inputs)
  lead = flat.shape[: -3 if pixels else -1]
  flat = flat.reshape(*lead, -1)
  # NumPy's generator: jax.random would be most of the compilation time.
  generator = np.random.default_rng(seed)

  def linear(*shape):
    weight = generator.normal(size=(flat.shape[-1], math.prod(shape)))
    out = flat @ jnp.asarray(weight, jnp.float32)
    return out.reshape(*lead, *shape).astype(dtype)

  maps = tuple(linear(size, size, 6) for size in (4, 4, 2))
  preactivations = tuple(linear(size, size, 6) for size in (4, 4, 2))
  logits, embedding = linear(CLASSES), linear(7)
  return Outputs(
    logits, embedding, maps, preactivations, (logits, linear(CLASSES))
  )


def counts(texts) -> jax.Array:
  """float32[..., vocabulary], how often each word is in a text or a mixture."""
  if isinstance(texts, Mixed):
    parts = counts(texts.parts)
    return jnp.sum(parts * texts.weights[..., None], axis=-2)
  words = jax.nn.one_hot(texts, VIEW.vocabulary.size)
  return jnp.sum(words, axis=-2)


def photographs(*lead):
  return jnp.asarray(draw(*lead, 2, 2, 3))


def shown(method: Method, *lead):
  """Images, or texts for a method of texts."""
  if method.inputs != "texts":
    return photographs(*lead)
  rows = tokens(math.prod(lead))
  return jnp.asarray(rows.reshape(*lead, *rows.shape[1:]))


def begin(method, task):
  """(params, state) after its stages, as the step's set-up asks for them."""
  image = jnp.ones((1, 1, 2, 2, 3))  # shapes of answers are the same
  heads = method.init(
    jax.random.key(2), task, answer(image, 5), answer(image, 6)
  )
  for stage in method.stages:
    heads = stage.finish(*heads)
  return heads


def contract_case(name: str, hyper: dict[str, Any], number: int) -> Case:
  """Builds a method's case: its stage `number`, or what follows them all."""
  method = methods.make(name, **hyper)
  trains_student, is_stage = True, number < len(method.stages)
  if is_stage:
    stage = method.stages[number]
    trains_student = stage.trains_student
    method = method._replace(loss=stage.loss, stages=method.stages[:number])
  labels = jnp.arange(ROWS, dtype=jnp.int32) % CLASSES
  task = Task(EXAMPLES, CLASSES, BATCH, EXAMPLES // BATCH, labels)
  start, sample, show = _jitted(method, task)
  params, state = start(EXAMPLES)
  batch = show(sample(EXAMPLES, 0, state))
  loss, graded, traces = _graded(method, state)
  return Case(
    name,
    hyper,
    method,
    task,
    params,
    state,
    sample,
    show,
    batch,
    trains_student,
    is_stage,
    loss,
    graded,
    traces,
  )


def _jitted(method: Method, task: Task):
  """(start, sample, show), each with the number of examples as a tracer."""
  chex.clear_trace_counter()  # it counts by name and line, not by function

  @jax.jit
  def start(num_examples):
    return begin(method, task._replace(num_examples=num_examples))

  @jax.jit
  @chex.assert_max_traces(n=1)
  def sample(num_examples, step, state):
    run = task._replace(num_examples=num_examples)
    return method.sample(jax.random.key(0), step, run, state)

  @jax.jit
  def show(index):
    inputs = shown(method, *index.shape)
    batch = Batch(index, inputs, task.labels[index])
    batch = batch._replace(teachers=(answer(inputs, 1),))
    return method.prepare(jax.random.key(3), batch)

  return start, sample, show


def _graded(method: Method, state):
  """(loss, its gradients, one entry for every trace of these)."""
  traces = []

  def loss(params, student, batch, state=state, step=0):
    key = jax.random.key(4)
    return method.loss(params, state, student, batch, key, jnp.int32(step))

  def of_teachers(params, student, teachers, batch, state, step):
    traces.append(None)
    batch = batch._replace(teachers=teachers)
    return loss(params, student, batch, state, step)

  jitted = jax.jit(
    jax.value_and_grad(of_teachers, argnums=(0, 1, 2), has_aux=True)
  )

  def graded(params, student, batch, state=state, step=0):
    return jitted(params, student, batch.teachers, batch, state, step)

  return loss, graded, traces
