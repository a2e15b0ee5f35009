"""RRD: three recorded steps, the formula in float64, the queue, the heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.methods.rrd import enqueue, rrd
from tests.helpers.arrays import draw, softmax, unit
from tests.helpers.dtypes import every_dtype

TASK = Task(8, 3, 4, 2, jnp.arange(8, dtype=jnp.int32) % 3)


def reference(student, teacher, queue, ts=0.04, tt=0.1):
  p = softmax(unit(teacher) @ queue.T.astype(np.float64) / tt)
  q = softmax(unit(student) @ queue.T.astype(np.float64) / ts)
  return -(p * np.log(q)).sum(-1).mean()


def test_three_recorded_steps(golden):
  with np.load(golden / "losses/rrd_fifo.npz", allow_pickle=False) as file:
    data = dict(file)
  queue, pointer = jnp.asarray(data["queue0"]), 0
  for step in range(3):
    teacher = data["f_t"][step] @ data["embed_t_w"].T + data["embed_t_b"]
    queue, pointer = enqueue(queue, pointer, teacher)

    def loss(x, teacher=teacher, queue=queue):
      student = x @ data["embed_s_w"].T + data["embed_s_b"][None]
      return rrd(
        student,
        teacher,
        queue,
        student_temperature=0.1,
        teacher_temperature=0.02,
      )

    value, gradient = jax.jit(jax.value_and_grad(loss))(data["f_s"][step])
    np.testing.assert_allclose(value, data["loss"][step], rtol=1e-5)
    np.testing.assert_allclose(gradient, data["grad"][step], atol=2e-6)
  np.testing.assert_allclose(queue, data["queue_end"], atol=1e-6)
  assert pointer == 48


@pytest.mark.parametrize("n", [5, 1])
def test_the_formula_uses_the_queue_as_stored(n):
  student, teacher, queue = draw(n, 6), draw(n, 6, seed=1), draw(9, 6, seed=2)
  value = jax.jit(rrd)(student, teacher, 0.3 * queue)
  assert value.shape == () and value.dtype == jnp.float32
  np.testing.assert_allclose(
    value, reference(student, teacher, 0.3 * queue), rtol=1e-5
  )


def test_neither_teacher_nor_queue_has_a_gradient():
  arguments = draw(5, 6), draw(5, 6, seed=1), draw(9, 6, seed=2)
  student, teacher, queue = jax.jit(jax.grad(rrd, argnums=(0, 1, 2)))(
    *arguments
  )
  assert np.abs(student).max() > 0
  assert not np.any(teacher) and not np.any(queue)


def test_the_queue_goes_round():
  # 5 rows of a queue of 3 hold the newest three, whatever the batch divides.
  queue, new = jnp.zeros((3, 2)), draw(5, 2)
  once, pointer = enqueue(queue, 2, new[:2])
  np.testing.assert_allclose(once, [unit(new)[1], [0, 0], unit(new)[0]], 1e-5)
  assert pointer == 1
  full, pointer = jax.jit(enqueue)(queue, 2, new)
  np.testing.assert_allclose(full, unit(new)[[4, 2, 3]], rtol=1e-5)
  assert pointer == 1 and pointer.dtype == jnp.int32


@pytest.mark.parametrize("n", [1, 3, 6, 7, 9])
def test_every_place_of_the_queue_is_written_in_turn(n):
  """Against a loop over the rows, from every pointer of a queue of 7."""
  queue, new = draw(7, 2, seed=1), draw(n, 2)
  write = jax.jit(enqueue)
  for pointer in range(7):
    expected = queue.copy()
    for i, row in enumerate(unit(new)):
      expected[(pointer + i) % 7] = row
    written, after = write(queue, pointer, new)
    np.testing.assert_allclose(written, expected, rtol=1e-5)
    assert after == (pointer + n) % 7


@every_dtype
@pytest.mark.parametrize("kind", ["zero", "equal", "duplicate", "large", "one"])
def test_hazards(kind, dtype):
  student, teacher, queue = draw(4, 6), draw(4, 6, seed=1), draw(9, 6, seed=2)
  if kind == "zero":
    student[0], teacher[1], queue[:] = 0, 0, 0
  elif kind == "equal":
    student = teacher
  elif kind == "duplicate":
    student[:], teacher[:], queue[:] = student[0], student[0], student[0]
  elif kind == "large":
    student, teacher = 1e4 * student, 1e4 * teacher
  elif kind == "one":
    student, teacher = student[:1], teacher[:1]
  arguments = (jnp.asarray(x, dtype) for x in (student, teacher, queue))
  value, gradient = jax.jit(jax.value_and_grad(rrd))(*arguments)
  assert np.isfinite(value) and value >= 0
  assert np.isfinite(gradient.astype(jnp.float32)).all()


def run(**hyper):
  method = methods.make("rrd", rows=6, dim=4, **hyper)
  student = Outputs(draw(4, 1, 3), draw(4, 1, 5, seed=1))
  teacher = Outputs(draw(4, 1, 3, seed=2), draw(4, 1, 7, seed=3))
  labels = np.zeros((4, 1), np.int32)
  batch = Batch(labels, None, labels, teachers=(teacher,))
  params, state = method.init(jax.random.key(0), TASK, student, teacher)

  def loss(params):
    return method.loss(params, state, student, batch, None, 0)

  (_, (after, metrics)), gradient = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(params)
  embeddings = [
    np.asarray(x[:, 0] @ head["weight"] + head["bias"][None])
    for x, head in (
      (student.embedding, params["student"]),
      (teacher.embedding, state["teacher"]),
    )
  ]
  return metrics["rrd"], embeddings, (params, state, after), gradient


@pytest.mark.parametrize(
  ("hyper", "temperatures", "first"),
  [
    ({}, (0.04, 0.1), False),
    ({"temperatures": "2025", "enqueue_at": "before"}, (0.1, 0.02), True),
    ({"student_temperature": 0.02}, (0.02, 0.1), False),
  ],
)
def test_the_published_orders_and_temperatures(hyper, temperatures, first):
  value, embeddings, (_, state, after), _ = run(**hyper)
  queue = np.asarray((after if first else state)["queue"])
  np.testing.assert_allclose(
    value, reference(*embeddings, queue, *temperatures), rtol=1e-4
  )
  np.testing.assert_allclose(after["queue"][:4], unit(embeddings[1]), atol=1e-5)


def test_the_teacher_head_is_constant_and_the_student_head_trained():
  _, _, (params, state, after), gradient = run()
  assert set(params) == {"student"}
  assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
  jax.tree.map(
    np.testing.assert_array_equal, state["teacher"], after["teacher"]
  )
  np.testing.assert_allclose(
    np.linalg.norm(state["queue"], axis=0), np.ones(4), rtol=1e-5
  )


@pytest.mark.parametrize(
  "hyper", [{"temperatures": "2023"}, {"enqueue_at": "never"}]
)
def test_unknown_names_are_refused(hyper):
  with pytest.raises(ValueError, match="not '"):
    methods.make("rrd", **hyper)
