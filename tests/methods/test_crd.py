"""CRD: three recorded steps, the formula in float64, and a clean memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Outputs, Task
from ckd_jax.methods.crd import _classes, _draw_counts, crd, crd_memory
from tests.helpers.arrays import draw, unit
from tests.helpers.dtypes import every_dtype

ROWS, DIM = 10, 4


GRADED = jax.jit(jax.value_and_grad(crd, (0, 1), has_aux=True))


def arguments(n=3, negatives=5):
  random = np.random.default_rng(9)
  index = random.permutation(ROWS)[:n].astype("i4")
  others = random.integers(0, ROWS, (n, negatives)).astype("i4")
  contrast = np.concatenate([index[:, None], others], 1)
  memory = crd_memory(jax.random.key(0), ROWS, DIM)
  return draw(n, DIM), draw(n, DIM, seed=1), memory, index, contrast


def reference(student, teacher, memory, contrast, num_examples, z, t=0.07):
  total, normalizers = 0.0, []
  noise = (contrast.shape[1] - 1) / num_examples
  for x, bank, stored in (
    (student, memory.teacher, z and z[0]),
    (teacher, memory.student, z and z[1]),
  ):
    bank = np.asarray(bank, np.float64)
    e = np.exp(np.einsum("nd,nkd->nk", unit(x), bank[contrast]) / t)
    stored = stored or e.mean() * num_examples
    p = e / stored
    positive = np.log(p[:, 0] / (p[:, 0] + noise))
    negative = np.log(noise / (p[:, 1:] + noise)).sum(1)
    total -= (positive + negative).mean()
    normalizers.append(stored)
  return total, normalizers


def test_three_recorded_steps(golden):
  with np.load(golden / "losses/crd.npz", allow_pickle=False) as file:
    data = dict(file)
  memory = crd_memory(jax.random.key(0), 96, 16)._replace(
    student=jnp.asarray(data["memory_s0"]),
    teacher=jnp.asarray(data["memory_t0"]),
  )
  for step in range(3):
    index = data["index"][step].astype("i4")
    contrast = data["contrast_index"][step].astype("i4")
    teacher = data["f_t"][step] @ data["embed_t_w"].T + data["embed_t_b"]

    def loss(x, teacher=teacher, memory=memory, rows=(index, contrast)):
      student = x @ data["embed_s_w"].T + data["embed_s_b"][None]
      return crd(student, teacher, memory, *rows, num_examples=96)

    (value, memory), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
      data["f_s"][step]
    )
    np.testing.assert_allclose(value, data["loss"][step], rtol=1e-5)
    np.testing.assert_allclose(gradient, data["grad"][step], atol=3e-6)
  np.testing.assert_allclose(memory.student, data["memory_s_end"], atol=1e-6)
  np.testing.assert_allclose(memory.teacher, data["memory_t_end"], atol=1e-6)


@pytest.mark.parametrize("n", [3, 1])
def test_the_formula_and_the_normalisers_of_the_first_batch(n):
  student, teacher, memory, index, contrast = arguments(n)
  step = jax.jit(crd)
  value, after = step(student, teacher, memory, index, contrast, num_examples=8)
  expected, z = reference(student, teacher, memory, contrast, 8, None)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(after[2:], z, rtol=1e-5)
  for bank, old, x in zip(
    after[:2], memory[:2], (student, teacher), strict=True
  ):
    moved = np.array(old, np.float64)
    moved[index] = unit(0.5 * moved[index] + 0.5 * unit(x))
    np.testing.assert_allclose(bank, moved, atol=1e-6)
  # The second batch keeps them, though it would give others.
  value, last = step(teacher, student, after, index, contrast, num_examples=8)
  expected, _ = reference(teacher, student, after, contrast, 8, z)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_array_equal(last[2:], after[2:])


def test_both_heads_are_trained_and_the_memory_is_constant():
  student, teacher, memory, *rows = arguments()
  gradient = jax.jit(
    jax.grad(lambda *x: crd(*x, *rows, num_examples=ROWS)[0], argnums=(0, 1, 2))
  )(student, teacher, memory)
  assert np.abs(gradient[0]).max() > 0 and np.abs(gradient[1]).max() > 0
  assert not any(np.any(leaf) for leaf in gradient[2])


@every_dtype
@pytest.mark.parametrize(
  "kind", ["zero", "equal", "duplicate", "large", "cold"]
)
def test_hazards(kind, dtype):
  student, teacher, memory, index, contrast = arguments()
  if kind == "zero":
    student[0], teacher[1] = 0, 0
    memory = memory._replace(student=memory.student.at[index[0]].set(0))
  elif kind == "equal":
    student = teacher
  elif kind == "duplicate":
    student[:], teacher[:] = student[0], student[0]
  elif kind == "large":
    student, teacher = 1e4 * student, 1e4 * teacher
  heat = 0.005 if kind == "cold" else 0.07  # exp(1 / 0.005) overflows

  (value, after), gradient = GRADED(
    *(jnp.asarray(x, dtype) for x in (student, teacher)),
    memory,
    index,
    contrast,
    num_examples=ROWS,
    temperature=heat,
  )
  assert np.isfinite(value) and value > 0
  for leaf in (*gradient, *after):
    assert np.isfinite(leaf.astype(jnp.float32)).all()
  assert all(z > 0 for z in after[2:])


def test_a_row_that_is_not_finite_does_not_poison_the_run():
  student, teacher, memory, index, contrast = arguments()
  whole = crd(
    student[1:],
    teacher[1:],
    memory,
    index[1:],
    contrast[1:],
    num_examples=ROWS,
  )[1]
  student[0], teacher[0] = np.nan, np.inf
  step = jax.jit(crd)
  value, after = step(
    student, teacher, memory, index, contrast, num_examples=ROWS
  )
  assert np.isnan(value)  # this batch is lost, and says so
  for mine, theirs in zip(after, whole, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
  # Nothing finite at all: the normalisers wait for the next batch.
  nothing = np.full_like(student, np.nan)
  _, after = step(nothing, nothing, memory, index, contrast, num_examples=ROWS)
  np.testing.assert_array_equal(after[2:], [-1, -1])
  np.testing.assert_array_equal(after.student, memory.student)


def test_a_first_batch_far_from_its_memory_does_not_poison_the_run():
  _, _, memory, index, contrast = arguments()
  memory = memory._replace(
    student=-jnp.ones((ROWS, DIM)), teacher=-jnp.ones((ROWS, DIM))
  )
  opposite = jnp.ones((3, DIM))  # a product of -2, and exp(-2 / 0.01) is 0
  step = jax.jit(
    jax.value_and_grad(
      lambda x, memory: crd(
        x, x, memory, index, contrast, num_examples=ROWS, temperature=0.01
      ),
      has_aux=True,
    )
  )
  (value, after), gradient = step(opposite, memory)
  # -200 against the least normaliser, 1.2e-38, in both directions.
  margin = -200 - np.log(np.finfo("f4").tiny) - np.log(5 / ROWS)
  np.testing.assert_allclose(value, -2 * margin, rtol=1e-5)
  assert all(z > 0 for z in after[2:]) and np.isfinite(gradient).all()
  (value, after), gradient = step(jnp.asarray(draw(3, DIM)), after)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert all(np.isfinite(leaf).all() for leaf in after)


LABELS = np.array([2, 0, 1, 0, 2, 2, 0, 1, 2, 0, 1, 1], np.int32)
FIRST = np.array([1, 2, 0])  # a row of each class


def many_counts(num_examples, negatives, draws=4000):
  """Counts for an image of each class, [draws, 3, rows]."""
  task = Task(num_examples, 3, 3, 4, jnp.asarray(LABELS))
  classes = jax.jit(lambda n: _classes(task._replace(num_examples=n)))(
    num_examples
  )
  draw = jax.vmap(lambda key: _draw_counts(key, FIRST, classes, negatives))
  return np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), draws)))


@pytest.mark.parametrize("negatives", [1, 5, 8, 30])
@pytest.mark.parametrize("num_examples", [12, 10])
def test_negatives_are_all_rows_of_other_classes_alike(num_examples, negatives):
  drawn = many_counts(num_examples, negatives)
  for label in range(3):
    other = (LABELS != label) & (np.arange(12) < num_examples)
    rate = negatives / other.sum()
    assert not drawn[:, label, ~other].any()
    counts = drawn[:, label, other]
    assert set(np.unique(counts)) <= {np.floor(rate), np.ceil(rate)}
    error = np.sqrt(rate % 1 * (1 - rate % 1) / len(counts))
    np.testing.assert_allclose(counts.mean(0), rate, atol=4 * error + 1e-6)


def test_negatives_are_drawn_independently():
  """Of rows, of images, and of steps: no correlation in 4 standard errors."""
  drawn = many_counts(12, 3, draws=6000)
  by_image = [drawn[:, i, LABELS != i] for i in range(3)]
  columns = np.concatenate(by_image, axis=1).T  # 24 images x rows, by draws
  both = np.concatenate([columns[:, 1:], columns[:, :-1]])
  correlation = np.corrcoef(both) - np.eye(len(both))
  assert np.abs(correlation).max() < 4.5 / np.sqrt(6000)


def test_one_class_alone_still_gives_rows_of_the_table():
  task = Task(5, 2, 5, 1, jnp.ones(7, jnp.int32))
  drawn = _draw_counts(jax.random.key(0), np.arange(5), _classes(task), 8)
  assert not drawn[:, 5:].any() and set(np.unique(drawn[:, :5])) <= {1, 2}


def test_the_method_trains_both_heads_and_moves_its_memory():
  method = methods.make("crd", negatives=6, dim=DIM)
  labels = jnp.arange(12, dtype=jnp.int32) % 3
  task = Task(10, 3, 4, 2, labels)
  student = Outputs(draw(4, 1, 3), draw(4, 1, 5, seed=1))
  teacher = Outputs(draw(4, 1, 3, seed=2), draw(4, 1, 7, seed=3))
  index = np.array([[3], [1], [9], [0]], np.int32)
  batch = Batch(index, None, labels[index], teachers=(teacher,))
  params, state = method.init(jax.random.key(0), task, student, teacher)

  def loss(params):
    return method.loss(params, state, student, batch, jax.random.key(1), 0)

  (value, (after, metrics)), gradient = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(params)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
  np.testing.assert_allclose(
    value, metrics["cross_entropy"] + 0.8 * metrics["crd"], rtol=1e-6
  )
  np.testing.assert_allclose(
    metrics["crd"], by_hand(params, state, student, batch), rtol=1e-5
  )
  for old, new in zip(state["memory"][:2], after["memory"][:2], strict=True):
    moved = np.flatnonzero(np.any(old != new, axis=1))
    np.testing.assert_array_equal(moved, [0, 1, 3, 9])


def by_hand(params, state, student, batch):
  """What the method logs, in float64, from the counts that it draws."""
  index, noise = batch.index[:, 0], 6 / 10
  classes, memory, total = state["classes"], state["memory"], 0.0
  counts = _draw_counts(jax.random.key(1), index, classes, 6)
  counts = np.asarray(counts, np.float64)
  for outputs, head, bank in (
    (student, params["student"], memory.teacher),
    (batch.teachers[0], params["teacher"], memory.student),
  ):
    x = outputs.embedding[:, 0] @ head["weight"] + head["bias"][None]
    e = np.exp(unit(np.asarray(x)) @ np.float64(bank).T / 0.07)
    own = e[np.arange(4), index]
    z = 10 * ((counts * e).sum() + own.sum()) / (counts.sum() + 4)
    positive = np.log(own / (own + noise * z))
    negative = (counts * np.log(noise * z / (e + noise * z))).sum(1)
    total -= (positive + negative).mean()
  return total
