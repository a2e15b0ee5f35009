"""Relational Representation Distillation: similarities to a queue."""

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
  """Computes the cross-entropy between two distributions over a queue.

  With u and v the normalised rows of student and teacher and M the queue,
  -mean_i sum_k softmax(v_i . M_k / tau_t)_k log softmax(u_i . M_k / tau_s)_k.
  It is a cross-entropy, not a divergence: its least value is not 0.

  Args:
    student: [n, dim], the student's embedding after its head.
    teacher: [n, dim], the teacher's embedding after its head. No gradient.
    queue: [rows, dim], not normalised again here. No gradient.
    student_temperature: tau_s, above 0.
    teacher_temperature: tau_t, above 0.

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
    pointer: int32, index of the oldest row.
    teacher: [n, dim], the teacher's embedding after its head; n may exceed
      rows.

  Returns:
    The new queue and the new pointer, int32 in [0, rows).
  """
  rows, n = len(queue), len(teacher)
  pointer = jnp.asarray(pointer, jnp.int32) % rows
  # Keep the last rows where not all fit, so that none is written twice.
  kept = min(n, rows)
  (new,) = constant(normalise(teacher[n - kept :]))
  first = (pointer + n - kept) % rows
  # Two slices, up to the end and from the start: a queue that is donated is
  # written in place, and a scatter would go row by row.
  start = jnp.minimum(first, rows - kept)
  for begin, turn in ((start, first - start), (0, first - rows)):
    index = jnp.arange(kept) - turn
    is_new = (index >= 0) & (index < kept)
    old = jax.lax.dynamic_slice_in_dim(queue, begin, kept)
    turned = jnp.roll(new, turn, axis=0).astype(queue.dtype)
    piece = jnp.where(is_new[:, None], turned, old)
    queue = jax.lax.dynamic_update_slice_in_dim(queue, piece, begin, 0)
  return queue, (pointer + n) % rows


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
  optimizer nor weight decay reaches it. The first queue is normalised over its
  columns, as published, so its rows begin with norm sqrt(dim / rows).

  Args:
    weight: weight of the cross-entropy between similarities.
    temperatures: "2024" for 0.04 (student) and 0.1 (teacher), "2025" for the
      later code's 0.1 and 0.02.
    student_temperature: replaces the student's when it is not 0.0.
    teacher_temperature: replaces the teacher's when it is not 0.0.
    enqueue_at: "after" the similarities are computed (2024) or "before" (2025);
      then every image also meets its own answer.
    rows: length of the queue.
    dim: width of both heads.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

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
    student, teacher = inputs.embeddings
    before = inputs.state["queue"]
    target = apply_linear(inputs.state["teacher"], teacher)
    after, pointer = enqueue(before, inputs.state["pointer"], target)
    value = rrd(
      apply_linear(inputs.params["student"], student),
      target,
      after if enqueue_at == "before" else before,
      student_temperature=student_temperature or student_published,
      teacher_temperature=teacher_temperature or teacher_published,
    )
    state = {**inputs.state, "queue": after, "pointer": pointer}
    return {"rrd": (weight, value)}, state

  return make_method(terms, extra, needs=("embedding",), init=init)
