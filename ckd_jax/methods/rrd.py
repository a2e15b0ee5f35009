"""Relational Representation Distillation: the same similarities to a queue."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._heads import apply_linear, linear
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_rows, constant, normalise

# (student, teacher) as the two published codes set them.
TEMPERATURES = {"2024": (0.04, 0.1), "2025": (0.1, 0.02)}


def rrd(
  student: jax.Array,
  teacher: jax.Array,
  queue: jax.Array,
  *,
  student_temperature: float = 0.04,
  teacher_temperature: float = 0.1,
) -> jax.Array:
  """Cross-entropy between two distributions of similarity to the queue.

  With u and v the normalised rows of student and teacher and M the queue,
  -mean_i sum_k softmax(v_i . M_k / tau_t)_k log softmax(u_i . M_k / tau_s)_k.
  It is a cross-entropy, not a divergence: its least value is not 0.

  Args:
    student: [n, dim], after its head.
    teacher: [n, dim], after its head. No gradient.
    queue: [rows, dim], used as stored. No gradient.
    student_temperature: tau_s.
    teacher_temperature: tau_t.

  Returns:
    float32 scalar, in nats.

  References:
    arXiv 2407.12073 v1, the loss with a first-in first-out memory.
  """
  check_rows(student, teacher)
  queue, teacher = constant(queue, normalise(teacher))

  def scores(x, temperature):
    return jnp.matmul(x, queue.T, precision="highest") / temperature

  target = jax.nn.softmax(scores(teacher, teacher_temperature))
  answer = jax.nn.log_softmax(scores(normalise(student), student_temperature))
  return -jnp.mean(jnp.sum(target * answer, axis=1))


def enqueue(
  queue: jax.Array, pointer: int | jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Writes the normalised rows of `teacher` over the oldest of the queue.

  Indices are taken modulo the rows, so that the batch need not divide them.

  Args:
    queue: [rows, dim].
    pointer: int32, where the oldest row is.
    teacher: [n, dim], after its head; n may exceed the rows.

  Returns:
    The new queue and the new pointer, int32 in [0, rows).
  """
  rows, n = len(queue), len(teacher)
  pointer = jnp.asarray(pointer, jnp.int32)
  # Of more than fit only the last stay: no row is written twice.
  kept = min(n, rows)
  index = (pointer + jnp.arange(n - kept, n, dtype=jnp.int32)) % rows
  (new,) = constant(normalise(teacher[n - kept :]))
  return queue.at[index].set(new.astype(queue.dtype)), (pointer + n) % rows


def make(
  *,
  weight: float = 1.0,
  temperatures: str = "2024",
  student_temperature: float = 0.0,
  teacher_temperature: float = 0.0,
  enqueue_at: str = "after",
  rows: int = 16384,
  dim: int = 128,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """RRD (arXiv 2407.12073); kd_weight=1.0 is its RRD+KD.

  The teacher's head gets no gradient, since targets and queue are constants: it
  stays the random projection of the start. It lies in the state, where neither
  the optimizer nor weight decay reaches it. The first queue is normalised over
  its columns, as published: its rows begin at norm sqrt(dim / rows).

  Args:
    weight: of the loss.
    temperatures: "2024" for 0.04 (student) and 0.1 (teacher), "2025" for the
      later code's 0.1 and 0.02.
    student_temperature: replaces the pair's when it is not 0.0.
    teacher_temperature: replaces the pair's when it is not 0.0.
    enqueue_at: "after" the similarities (2024) or "before" them (2025): then
      every image also meets its own answer.
    rows: length of the queue.
    dim: width of both heads.
    cross_entropy_weight: of the cross-entropy with the labels.
    kd_weight: of the KD term.
    ckd_weight: of the comparative term.

  Raises:
    ValueError: an unknown name, or a value outside its range.
  """
  if temperatures not in TEMPERATURES:
    raise ValueError(
      f"temperatures must be one of {tuple(TEMPERATURES)}, not {temperatures!r}"
    )
  if enqueue_at not in ("after", "before"):
    raise ValueError(
      f'enqueue_at must be "after" or "before", not {enqueue_at!r}'
    )
  student_published, teacher_published = TEMPERATURES[temperatures]
  at_least(
    0,
    weight=weight,
    student_temperature=student_temperature,
    teacher_temperature=teacher_temperature,
  )
  at_least(1, rows=rows, dim=dim)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    student_key, teacher_key, queue_key = jax.random.split(key, 3)
    queue = jax.random.normal(queue_key, (rows, dim))
    params = {"student": linear(student_key, student.embedding.shape[-1], dim)}
    state = {
      "teacher": linear(teacher_key, teacher.embedding.shape[-1], dim),
      "queue": normalise(queue.T).T,
      "pointer": jnp.zeros((), jnp.int32),
    }
    return params, state

  def terms(inputs: Inputs):
    target = apply_linear(
      inputs.state["teacher"], inputs.teacher.embedding[:, 0]
    )
    queue, pointer = enqueue(
      inputs.state["queue"], inputs.state["pointer"], target
    )
    value = rrd(
      apply_linear(inputs.params["student"], inputs.student.embedding[:, 0]),
      target,
      queue if enqueue_at == "before" else inputs.state["queue"],
      student_temperature=student_temperature or student_published,
      teacher_temperature=teacher_temperature or teacher_published,
    )
    state = {**inputs.state, "queue": queue, "pointer": pointer}
    return {"rrd": (weight, value)}, state

  return make_method(terms, extra, needs=("embedding",), init=init)
