"""EmbedDistill's symmetric student: documents of a batch, read by it, too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Index, Outputs, Task, symmetric
from ckd_jax.methods.crd import _draw_counts
from ckd_jax.step import Examples, gather, pad, runtime_task
from tests.helpers.arrays import draw, log_softmax, unit

ROWS, DOCUMENTS, DIM, TABLE = 6, 9, 5, 20
TEMPERATURE = 0.3
ANCHORS = draw(DOCUMENTS, DIM, seed=2)
LABELS = np.array([0, 8, 3, 3, 5, 1], np.int32)  # two share document 3
OWN = np.array([0, 1, 2, 2, 4, 5])  # the column of each, the first one
TASK = Task(ROWS, DOCUMENTS, ROWS, 1, LABELS)


def table(teacher) -> Examples:
  """Queries, empty rows, and the documents; as they lie on the device."""
  queries = Examples(
    np.arange(ROWS)[:, None], LABELS, (Outputs(np.float32(teacher)),)
  )
  documents = Examples(
    100 + np.arange(DOCUMENTS)[:, None],
    np.arange(DOCUMENTS, dtype=np.int32),
    (Outputs(ANCHORS),),
  )
  return pad(queries, TABLE, documents)


def case(name, cosine=False, hyper=None):
  """(loss of the student's vectors [ROWS, 2, DIM], teacher's vectors)."""
  index = Index(ANCHORS, TEMPERATURE, cosine)
  method = symmetric(methods.make(name, **(hyper or {})), index)
  teacher = draw(ROWS, DIM, seed=1)
  examples = table(teacher)
  documents = TABLE - DOCUMENTS + LABELS
  batch = gather(examples, np.stack([np.arange(ROWS), documents], axis=1))
  if not method.needs:
    batch = batch._replace(teachers=())
  one = Outputs(jnp.zeros((1, 1, DOCUMENTS)), jnp.zeros((1, 1, DIM)))
  told = Outputs(jnp.zeros((1, 1, DIM)))
  task = runtime_task(TASK, examples)
  params, state = method.init(jax.random.key(0), task, one, told)

  def loss(vectors, batch=batch):
    student = Outputs(jnp.zeros((ROWS, 2, DOCUMENTS)), index.placed(vectors))
    key = jax.random.key(0)
    value, (_, metrics) = method.loss(params, state, student, batch, key, 0)
    return value, metrics

  return loss, np.stack([teacher, ANCHORS[LABELS]], axis=1)


def expected(student, teacher, cosine):
  """Equations 9, 11, 7 and 8 from the paper, in float64."""
  place = unit if cosine else np.float64
  (query, document), (q, d) = (
    np.moveaxis(place(x), 1, 0) for x in (student, teacher)
  )
  mine = log_softmax(query @ document.T / TEMPERATURE)
  theirs = log_softmax(q @ d.T / TEMPERATURE)
  return {
    "cross_entropy": -mine[np.arange(ROWS), OWN].mean(),
    "score": (np.exp(theirs) * (theirs - mine)).sum(-1).mean(),
    "embedding": np.linalg.norm(query - q, axis=1).mean(),
    "document_embedding": np.linalg.norm(document - d, axis=1).mean(),
  }


WEIGHTS = {
  "cross_entropy_weight": 0.5,
  "score_weight": 2.0,
  "weight": 5.0,
}


@pytest.mark.parametrize("cosine", [False, True])
def test_values_and_gradients_are_those_of_the_paper(cosine):
  loss, teacher = case("embed_distill", cosine, WEIGHTS)
  student = draw(ROWS, 2, DIM)
  graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, metrics), gradient = graded(student)

  def total(vectors):
    terms = expected(vectors, teacher, cosine)
    return np.dot([0.5, 2.0, 5.0, 5.0], list(terms.values()))

  for name, term in expected(student, teacher, cosine).items():
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(value, total(student), rtol=1e-5)
  slope = np.zeros_like(student, dtype=np.float64)
  for place in np.ndindex(student.shape):
    step = np.zeros_like(slope)
    step[place] = 1e-5
    slope[place] = (total(student + step) - total(student - step)) / 2e-5
  np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-4)
  assert np.abs(gradient[:, 1]).max() > 0.1  # documents are trained


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
  hyper = {"cross_entropy_weight": 0.0}
  loss, teacher = case("embed_distill", hyper=hyper)
  graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, metrics), gradient = graded(teacher)
  assert metrics["embedding"] == metrics["document_embedding"] == 0
  np.testing.assert_allclose([value, metrics["score"]], 0, atol=1e-6)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_the_score_of_a_shared_document_is_no_mistake():
  loss, _ = case("supervised", cosine=True)
  vectors = np.stack([ANCHORS[LABELS]] * 2, axis=1)
  assert loss(vectors)[1]["train_accuracy"] == 100
  vectors[:, 0] = vectors[[1, 0, 2, 3, 4, 5], 0]
  found = loss(vectors)[1]["train_accuracy"]
  assert found == pytest.approx(100 * 4 / 6)


def test_a_group_is_a_query_and_its_document():
  """And a pass has every query once, a document never as a query."""
  task = runtime_task(TASK._replace(batch_size=3), table(ANCHORS[:ROWS]))
  method = symmetric(methods.make("supervised"), Index(ANCHORS))
  sample = jax.jit(lambda step: method.sample(jax.random.key(3), step, task, 0))
  index = np.concatenate([sample(0), sample(1)])
  assert sorted(index[:, 0]) == list(range(ROWS))
  np.testing.assert_array_equal(
    index[:, 1], TABLE - DOCUMENTS + LABELS[index[:, 0]]
  )


def test_documents_are_the_last_rows_and_do_not_count():
  examples = table(draw(ROWS, DIM, seed=1))
  assert examples.count == ROWS and len(examples.labels) == TABLE
  found = gather(examples, np.array([[5, TABLE - 1], [ROWS, TABLE - 9]]))
  assert found.inputs[..., 0].tolist() == [[5, 108], [0, 100]]
  assert found.labels.tolist() == [[1, 8], [0, 0]]
  np.testing.assert_array_equal(found.teachers[0].logits[:, 1], ANCHORS[[8, 0]])


@pytest.mark.parametrize(
  "name",
  ["dist", *(pytest.param(x, marks=pytest.mark.slow) for x in ("rkd", "crd"))],
)
def test_other_methods_work_on_pairs(name):
  loss, _ = case(name, hyper={"crd": {"negatives": 4}}.get(name))
  graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, metrics), gradient = graded(draw(ROWS, 2, DIM))
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert np.abs(gradient).max() > 0 and "document_embedding" not in metrics


def test_two_titles_of_a_document_are_no_negatives():
  """Whatever the columns of a batch say: rows 2 and 3 are of document 3."""
  method = symmetric(
    methods.make("crd", negatives=20, dim=2), Index(ANCHORS, TEMPERATURE)
  )
  one = Outputs(jnp.zeros((1, 1, DOCUMENTS)), jnp.zeros((1, 1, DIM)))
  task = runtime_task(TASK, table(ANCHORS[:ROWS]))
  _, state = method.init(jax.random.key(0), task, one, one)
  counts = _draw_counts(
    jax.random.key(0), np.arange(ROWS), state["classes"], 20
  )
  wanted = np.where(LABELS[:, None] == LABELS, 0, 4)
  wanted[2:4] = np.where(wanted[2:4], 5, 0)
  np.testing.assert_array_equal(counts[:, :ROWS], wanted)
  assert not counts[:, ROWS:].any()


@pytest.mark.parametrize("name", ["ckd", "mixkd"])
def test_groups_of_rows_are_refused(name):
  method = symmetric(methods.make(name), Index(ANCHORS))
  state = {"groups": jnp.zeros(8, int), "num_groups": 1}
  with pytest.raises(ValueError, match="compares groups of rows"):
    jax.eval_shape(
      lambda key: method.sample(key, 0, TASK, state), jax.random.key(0)
    )


def test_one_pair_and_equal_vectors_are_finite():
  index = Index(ANCHORS, 1e-6, cosine=True)
  method = symmetric(methods.make("embed_distill"), index)
  pair = Outputs(jnp.zeros((1, 2, DIM)))
  batch = Batch(np.zeros((1, 2), int), None, LABELS[None, :2], teachers=(pair,))

  def loss(vectors):
    student = Outputs(vectors, index.placed(vectors))
    return method.loss({}, {}, student, batch, None, 0)[0]

  for vectors in (np.zeros((1, 2, DIM), "f4"), np.ones((1, 2, DIM), "f4")):
    value, gradient = jax.jit(jax.value_and_grad(loss))(vectors)
    assert np.isfinite(value) and np.isfinite(gradient).all()
