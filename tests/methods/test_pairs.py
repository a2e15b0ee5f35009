"""A cross encoder's scores and pooled vectors, for both kinds of students."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import methods
from ckd_jax.methods import (
  Batch,
  Index,
  Outputs,
  Task,
  TopK,
  anchored,
  symmetric,
)
from ckd_jax.methods._anchored import draw as drawn
from tests.helpers.arrays import draw, log_softmax, unit

ROWS, DOCUMENTS, DIM, KEPT = 4, 7, 3, 3
ANCHORS = draw(DOCUMENTS, DIM, seed=2)
LABELS = np.array([0, 6, 3, 2], np.int32)
TASK = Task(ROWS, DOCUMENTS, ROWS, 1, LABELS)
SCORES = draw(ROWS, DOCUMENTS, seed=3, scale=2.0)
POOLED = draw(ROWS, 2 * DIM, seed=4)
VECTORS = draw(ROWS, 2, DIM, seed=5)  # a query's and its document's


def listed() -> tuple[TopK, np.ndarray]:
  """Scores of some pairs, and the same of all, -inf where none was asked."""
  ids = np.stack(
    [np.random.default_rng(x).permutation(7)[:3] for x in range(4)]
  )
  ids[2] = [0, 1, 5]  # of the batch's documents 0 alone
  ids[3] = [1, 4, 5]  # none of the batch's
  kept = log_softmax(np.take_along_axis(SCORES, ids, 1)).astype("f4")
  dense = np.full((ROWS, DOCUMENTS), -np.inf, "f4")
  np.put_along_axis(dense, ids, kept, 1)
  return TopK(ids.astype(np.int32), kept, np.zeros(ROWS, "f4")), dense


def losses(seen, index, told, embedding=POOLED, **hyper):
  """(value, metrics) of VECTORS, and its gradient."""
  method = seen(methods.make("embed_distill", **hyper), index)
  teacher = Outputs(told, embedding)
  group = 2 if seen is symmetric else 1
  rows = jax.tree.map(
    lambda x: jnp.repeat(jnp.asarray(x)[:, None], group, axis=1), teacher
  )
  batch = Batch(
    np.zeros((ROWS, group), int),
    None,
    np.repeat(LABELS[:, None], group, axis=1),
    teachers=(rows,),
  )
  one = Outputs(jnp.zeros((1, 1, DOCUMENTS)), jnp.zeros((1, 1, DIM)))
  first = jax.tree.map(lambda x: x[:1, :1], rows)
  params, state = method.init(jax.random.key(0), TASK, one, first)

  @jax.jit
  def graded(vectors):
    def loss(vectors):
      vectors = index.placed(vectors)  # as a tower gives them
      student = Outputs(index.scores(vectors, index.anchors), vectors)
      key = jax.random.key(0)
      value, (_, found) = method.loss(params, state, student, batch, key, 0)
      return value, found

    return jax.value_and_grad(loss, has_aux=True)(vectors)

  (value, found), gradient = graded(VECTORS[:, :group])
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
  return value, found


def matched(mine, theirs) -> float:
  """Equation 11; documents of -inf are ruled out."""
  mine, theirs = log_softmax(mine), log_softmax(theirs)
  possible = np.isfinite(theirs)
  gaps = np.where(possible, theirs, 0) - mine
  return float((np.exp(theirs) * gaps).sum(-1).mean())


def distance(student, teacher) -> float:
  return np.linalg.norm(np.float64(student) - teacher, axis=1).mean()


@pytest.mark.parametrize("form", ["all", "some", "listed"])
def test_given_scores_of_all_documents(form):
  kept, dense = listed()
  told = {"all": SCORES, "some": dense, "listed": kept}[form]
  wanted = SCORES if form == "all" else dense
  _, found = losses(anchored, Index(ANCHORS, 0.5, pairs=True), told)
  mine = np.float64(VECTORS[:, 0]) @ ANCHORS.T / 0.5
  np.testing.assert_allclose(found["score"], matched(mine, wanted), rtol=1e-5)
  gap = distance(VECTORS[:, 0], POOLED[:, :DIM])
  np.testing.assert_allclose(found["embedding"], gap, rtol=1e-5)
  if form == "all":
    index = Index(ANCHORS, 0.5, cosine=True, pairs=True)
    gap = distance(unit(VECTORS[:, 0]), unit(POOLED[:, :DIM]))
    _, found = losses(anchored, index, told)
    np.testing.assert_allclose(found["embedding"], gap, rtol=1e-5)
  assert "document_embedding" not in found


@pytest.mark.slow
@pytest.mark.parametrize("form", ["all", "listed"])
def test_given_scores_of_sampled_documents(form):
  kept, dense = listed()
  index = Index(ANCHORS, 0.5, sampled=6, pairs=True)
  told, wanted = (SCORES, SCORES) if form == "all" else (kept, dense)
  _, found = losses(anchored, index, told)
  drawing, _ = jax.random.split(jax.random.key(0))
  rows = np.asarray(drawn(drawing, jnp.asarray(LABELS), DOCUMENTS, 6))
  mine = np.float64(VECTORS[:, 0]) @ ANCHORS[rows].T / 0.5
  wanted = matched(mine, wanted[:, rows])
  np.testing.assert_allclose(found["score"], wanted, rtol=1e-5)


@pytest.mark.parametrize("form", ["all", "listed"])
def test_given_scores_of_the_batch(form):
  """A query with none of the batch's documents has its label."""
  kept, dense = listed()
  told, wanted = (SCORES, SCORES) if form == "all" else (kept, dense)
  cosine = form == "all"
  _, found = losses(symmetric, Index(ANCHORS, 0.5, cosine, pairs=True), told)
  place = unit if cosine else np.float64
  vectors, wanted = place(VECTORS), wanted[:, LABELS]
  if form == "listed":
    assert not np.isfinite(wanted[3]).any()
    wanted[3, 3] = 0.0
  mine = vectors[:, 0] @ vectors[:, 1].T / 0.5
  np.testing.assert_allclose(found["score"], matched(mine, wanted), rtol=1e-5)
  for name, at in (("embedding", 0), ("document_embedding", 1)):
    side = POOLED[:, DIM * at : DIM * (at + 1)]
    gap = distance(vectors[:, at], place(side))
    np.testing.assert_allclose(found[name], gap, rtol=1e-5)


@pytest.mark.parametrize("seen", [anchored, symmetric])
def test_scores_alone(seen):
  """Without vectors at weight 0; of another width with a projection."""
  index = Index(ANCHORS, 0.5, pairs=True)
  _, found = losses(seen, index, SCORES, None, weight=0.0)
  assert set(found) >= {"score", "cross_entropy"} and "embedding" not in found
  _, found = losses(seen, index, SCORES, draw(ROWS, 8, seed=6))
  assert found["embedding"] > 0
  with pytest.raises(ValueError, match="side by side"):
    losses(seen, index, SCORES, draw(ROWS, 5, seed=6))
  needs = {seen(methods.make("embed_distill"), index).needs}
  needs |= {seen(methods.make("embed_distill", weight=0.0), index).needs}
  assert needs == {frozenset({"logits", "embedding"}), frozenset({"logits"})}
