"""Any method where classes are documents, and vectors score them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax.methods._pairs import pooled, scores_of
from ckd_jax.methods._seams import Loss, Method, Outputs, no_offset
from ckd_jax.numerics import float32, normalise


class Index(NamedTuple):
  """The documents that are searched, and how a vector scores them.

  Attributes:
    anchors: float[documents, dim], their vectors; never trained.
    temperature: by which products of vectors are divided, to be logits.
    cosine: whether vectors are brought to length 1 before.
    sampled: documents that a training step compares; 0: all of them.
    pairs: whether a teacher's answers are scores of documents, those of a cross
      encoder, and its embeddings of pairs; else vectors.
  """

  anchors: Any
  temperature: float = 1.0
  cosine: bool = False
  sampled: int = 0
  pairs: bool = False

  def placed(self, vectors: jax.Array) -> jax.Array:
    """Vectors [..., dim] as they are compared, float32."""
    (vectors,) = float32(vectors)
    return normalise(vectors) if self.cosine else vectors

  def scores(self, vectors: jax.Array, anchors: jax.Array) -> jax.Array:
    """Logits of documents, float32[..., documents].

    Args:
      vectors: [..., dim], of queries, from `placed`.
      anchors: [documents, dim], all of them or some.
    """
    # Documents lie close together: half of the digits would not rank them.
    products = jnp.matmul(vectors, self.placed(anchors).T, precision="highest")
    return products / self.temperature


def anchored(method: Method, index: Index) -> Method:
  """The same method, on vectors: its logits are scores of documents.

  The table holds a vector for each query, as short as the encoder's; its scores
  are computed in the step. The documents' vectors lie in the method's memory.
  Or it holds the scores themselves, those of a cross encoder; a document that
  it was not asked about is ruled out.

  With `sampled` a step compares the documents that its rows name, and others
  drawn uniformly, all different: a softmax over these. The scores of all
  documents are then not computed in a step, so that its memory and time do not
  grow with them, but for one random number each.

  Args:
    method: works on logits and embeddings.
    index: the documents.

  Returns:
    A method whose teacher gives a vector as its "logits", or scores of pairs,
    and whose student's embedding is a vector, too.
  """
  sampled = index.sampled
  if not sampled and not method.needs:
    return method  # labels alone

  def init(key, task, student, teacher):
    among = jnp.asarray(index.anchors, jnp.float32)
    some = among[: sampled or None]
    task = task._replace(num_classes=len(some))
    student = _scored(index, student, student.embedding, some)
    if method.needs:
      first = jnp.zeros((1, 1), int)
      teacher = _told(index, teacher, first, some, jnp.arange(len(some)))
    params, own = method.init(key, task, student, teacher)
    return params, {"documents": among, "method": own}

  def sample(key, step, task, state):
    return method.sample(key, step, task, state["method"])

  def on_vectors(loss: Loss) -> Loss:
    def wrapped(params, state, student, batch, key, step):
      among, rows, counted = state["documents"], None, {}
      if sampled:
        drawing, key = jax.random.split(key)
        rows = draw(drawing, batch.labels, len(among), sampled)
        among = among[rows]
        batch = batch._replace(labels=jnp.searchsorted(rows, batch.labels))
        student = _scored(index, student, student.embedding, among)
        hits = jnp.argmax(student.logits, axis=-1) == batch.labels
        counted = {"train_accuracy": 100 * jnp.mean(hits)}
      teachers = tuple(
        _told(index, one, batch.labels, among, rows) for one in batch.teachers
      )
      batch = batch._replace(teachers=teachers)
      own = state["method"]
      value, (own, metrics) = loss(params, own, student, batch, key, step)
      return value, ({**state, "method": own}, {**counted, **metrics})

    return wrapped

  def finish(stage):
    def wrapped(params, state):
      params, own = stage.finish(params, state["method"])
      return params, {**state, "method": own}

    return wrapped

  return method._replace(
    init=init,
    sample=sample,
    loss=on_vectors(method.loss),
    needs=method.needs if index.pairs else method.needs - {"embedding"},
    takes_top=index.pairs or method.takes_top,
    offset_target=no_offset,
    stages=tuple(
      stage._replace(loss=on_vectors(stage.loss), finish=finish(stage))
      for stage in method.stages
    ),
  )


def _scored(index: Index, outputs: Outputs, vectors, among) -> Outputs:
  """Outputs whose logits are scores of the documents float[m, dim]."""
  vectors = index.placed(vectors)
  logits = index.scores(vectors, among)
  return outputs._replace(logits=logits, embedding=vectors)


def _told(index: Index, outputs: Outputs, labels, among, rows) -> Outputs:
  """The same of a teacher; `rows` are the documents' numbers, None is all."""
  if not index.pairs:
    return _scored(index, outputs, outputs.logits, among)
  logits = scores_of(outputs.logits, labels, len(index.anchors), rows)
  query, _ = pooled(outputs.embedding)
  if query is not None:
    query = index.placed(query)
  return outputs._replace(logits=logits, embedding=query)


def draw(
  key: jax.Array, labels: jax.Array, documents: int, size: int
) -> jax.Array:
  """Draws different documents, those of the labels among them.

  Args:
    key: random key.
    labels: int32[...], documents that have to be there.
    documents: number of all of them.
    size: number to draw.

  Returns:
    int32[size], ascending.

  Raises:
    ValueError: size is below the number of labels, or above `documents`.
  """
  if not labels.size <= size <= documents:
    raise ValueError(
      f"{size} sampled documents: give {labels.size}, a step's rows, or more,"
      f" and no more than the {documents} there are; or 0 for all of them"
    )
  lots = jax.random.uniform(key, (documents,))  # below 1
  lots = lots.at[labels.reshape(-1)].set(1.0)
  return jnp.sort(jax.lax.top_k(lots, size)[1])
