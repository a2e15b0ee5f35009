"""EmbedDistill's scores: any method on vectors, all documents or some."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import Batch, Index, Outputs, Task, anchored
from ckd_jax.methods._anchored import draw as drawn
from tests.helpers.arrays import draw, log_softmax, unit

ROWS, DOCUMENTS, DIM = 6, 9, 5
ANCHORS = draw(DOCUMENTS, DIM, seed=2)
LABELS = np.array([0, 8, 3, 3, 5, 1], np.int32)
TASK = Task(ROWS, DOCUMENTS, ROWS, 1, LABELS)


def case(name, index=None, hyper=None, teacher=None):
  """(loss of the student's vectors [ROWS, DIM] -> (value, metrics), parts)."""
  index = index or Index(ANCHORS, 0.5)
  teacher = draw(ROWS, DIM, seed=1) if teacher is None else teacher
  method = anchored(methods.make(name, **(hyper or {})), index)

  def outputs(vectors):
    vectors = index.placed(jnp.asarray(vectors)[:, None])
    return Outputs(index.scores(vectors, index.anchors), vectors)

  batch = Batch(
    np.arange(ROWS)[:, None],
    None,
    LABELS[:, None],
    teachers=(Outputs(jnp.asarray(teacher)[:, None]),) if method.needs else (),
  )
  one = jax.tree.map(lambda x: x[:1, :1], outputs(teacher))
  told = jax.tree.map(lambda x: x[:1, :1], batch.teachers) or (one,)
  params, state = method.init(jax.random.key(0), TASK, one, told[0])

  def loss(vectors, batch=batch, key=0):
    student = outputs(vectors)
    key = jax.random.key(key)
    value, (_, metrics) = method.loss(params, state, student, batch, key, 0)
    return value, metrics

  return loss, batch


def expected(student, teacher, anchors, labels, temperature, cosine):
  """The three terms from the paper, in float64."""
  place = unit if cosine else np.float64
  s, t, d = place(student), place(teacher), place(anchors)
  mine, theirs = (log_softmax(x @ d.T / temperature) for x in (s, t))
  return {
    "embedding": np.linalg.norm(s - t, axis=1).mean(),
    "score": (np.exp(theirs) * (theirs - mine)).sum(-1).mean(),
    "cross_entropy": -mine[np.arange(len(labels)), labels].mean(),
  }


@pytest.mark.parametrize("cosine", [False, True])
def test_the_terms_of_the_paper(cosine):
  student, teacher = draw(ROWS, DIM), draw(ROWS, DIM, seed=1)
  loss, _ = case("embed_distill", Index(ANCHORS, 0.3, cosine))
  value, metrics = jax.jit(loss)(student)
  wanted = expected(student, teacher, ANCHORS, LABELS, 0.3, cosine)
  for name, term in wanted.items():
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(value, sum(wanted.values()), rtol=1e-5)


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
  teacher = draw(ROWS, DIM, seed=1)
  for hyper in ({"score_weight": 0.0}, {"weight": 0.0}):
    loss, _ = case(
      "embed_distill", hyper={"cross_entropy_weight": 0.0, **hyper}
    )
    graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), gradient = graded(teacher)
    assert metrics["embedding"] == 0
    np.testing.assert_allclose([value, metrics["score"]], 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_a_small_temperature_leaves_the_best_document():
  """The cross-entropy is then 0 where it is the label, and huge elsewhere."""
  loss, _ = case("embed_distill", Index(ANCHORS, 1e-6))
  graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, _), gradient = graded(draw(ROWS, DIM))
  assert np.isfinite(value) and np.isfinite(gradient).all()
  right, _ = case("supervised", Index(ANCHORS, 1e-6, cosine=True))
  np.testing.assert_allclose(right(ANCHORS[LABELS])[0], 0, atol=1e-6)


def test_the_order_of_a_batch_does_not_matter():
  student, order = draw(ROWS, DIM), np.array([3, 0, 5, 1, 4, 2])
  loss, batch = case("embed_distill")
  turned = jax.tree.map(lambda x: x[order], batch)
  np.testing.assert_allclose(
    loss(student)[0], loss(student[order], turned)[0], rtol=1e-6
  )


def test_drawn_documents_are_different_and_hold_the_labels():
  sizes = jnp.asarray(LABELS)
  counts = np.zeros(DOCUMENTS)
  for number in range(200):
    rows = np.asarray(drawn(jax.random.key(number), sizes, DOCUMENTS, 7))
    assert set(LABELS) <= set(rows.tolist()) and len(set(rows.tolist())) == 7
    assert (np.diff(rows) > 0).all()
    counts[rows] += 1
  others = counts[np.setdiff1d(np.arange(DOCUMENTS), LABELS)]
  assert (abs(others / 200 - 2 / 4) < 0.12).all()  # 2 of the 4 others


def test_sampled_documents_are_a_softmax_over_them():
  student, teacher = draw(ROWS, DIM), draw(ROWS, DIM, seed=1)
  loss, _ = case("embed_distill", Index(ANCHORS, 0.5, sampled=7))
  _, metrics = jax.jit(loss)(student)
  drawing, _ = jax.random.split(jax.random.key(0))
  rows = np.asarray(drawn(drawing, jnp.asarray(LABELS), DOCUMENTS, 7))
  labels = np.searchsorted(rows, LABELS)
  wanted = expected(student, teacher, ANCHORS[rows], labels, 0.5, False)
  for name, term in wanted.items():
    np.testing.assert_allclose(metrics[name], term, rtol=1e-5, err_msg=name)
  right = (student @ ANCHORS[rows].T).argmax(1) == labels
  assert metrics["train_accuracy"] == pytest.approx(100 * right.mean())
  others = {float(loss(student, key=number)[0]) for number in range(5)}
  assert len(others) > 1


def test_negatives_are_other_documents_however_many_are_compared():
  """All four or five of them, five times or four: nothing is left to chance."""
  hyper = {"negatives": 20, "dim": 3}
  found = {
    sampled: jax.jit(case("crd", Index(ANCHORS, 0.5, False, sampled), hyper)[0])
    for sampled in (0, 7)
  }
  student = draw(ROWS, DIM)
  terms = [float(loss(student)[1]["crd"]) for loss in found.values()]
  np.testing.assert_allclose(terms, terms[0], rtol=1e-6)


def test_all_documents_sampled_is_all_documents():
  student = draw(ROWS, DIM)
  for name in ("embed_distill", "supervised"):
    whole, _ = case(name)
    sampled, _ = case(name, Index(ANCHORS, 0.5, sampled=DOCUMENTS))
    np.testing.assert_allclose(
      sampled(student)[0], whole(student)[0], rtol=1e-6, err_msg=name
    )


def test_a_sampled_step_does_not_score_all_documents():
  many = Index(draw(1000, DIM), sampled=7)
  loss, _ = case("embed_distill", many)
  program = jax.jit(jax.grad(loss, has_aux=True))
  text = program.lower(draw(ROWS, DIM)).compile().as_text()
  assert f"f32[{ROWS},1,7]" in text and f"f32[{ROWS},1,1000]" not in text


@pytest.mark.parametrize("size", [5, 10])
def test_too_few_or_too_many_sampled_documents(size):
  loss, _ = case("embed_distill", Index(ANCHORS, sampled=size))
  with pytest.raises(ValueError, match=f"{size} sampled documents: give 6"):
    loss(draw(ROWS, DIM))


@pytest.mark.parametrize(
  ("name", "sampled"), [("dist", 0), ("rkd", 7), ("crd", 7)]
)
def test_other_methods_work_on_vectors(name, sampled):
  hyper = {"crd": {"negatives": 4}}.get(name)
  loss, _ = case(name, Index(ANCHORS, 0.5, sampled=sampled), hyper)
  graded = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, _), gradient = graded(draw(ROWS, DIM))
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert np.abs(gradient).max() > 0


def test_the_teacher_needs_no_more_than_a_vector():
  method = anchored(methods.make("embed_distill"), Index(ANCHORS))
  assert method.needs == {"logits"}
  labels = methods.make("supervised")
  assert anchored(labels, Index(ANCHORS)) is labels
