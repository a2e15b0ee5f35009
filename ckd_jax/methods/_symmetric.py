"""Any method where one network reads queries and documents alike."""

import jax
import jax.numpy as jnp

from ckd_jax.methods._anchored import Index
from ckd_jax.methods._pairs import pooled, scores_of
from ckd_jax.methods._seams import Loss, Method, Outputs, no_offset


def symmetric(method: Method, index: Index) -> Method:
  """The same method, on pairs of a query and its document.

  The last rows of the table are the documents, in the order of the index: no
  pass over the rows reaches them, a query's label leads to its own. A group is
  [query, document]; the logits of a query are its scores of the documents of
  the batch, its label is the column of its own, and embeddings are of both.
  A teacher's vectors of documents are rows of the table, as those of queries;
  a cross encoder's stand beside the query's.

  Where two queries of a batch share a document it has two columns, of which the
  first is the label of both: equal scores, so the other one is no mistake.

  Args:
    method: works on logits and embeddings of a batch of distinct rows.
    index: how vectors are compared; its anchors are counted, no more.

  Returns:
    A method whose teacher gives a vector as its "logits", or scores of pairs,
    and whose student's embedding is a vector, too.
  """

  def init(key, task, student, teacher):
    scores = jnp.zeros((1, 1, task.batch_size))
    student = student._replace(logits=scores)
    if method.needs:
      vector = pooled(teacher.embedding)[0] if index.pairs else teacher.logits
      teacher = teacher._replace(logits=scores, embedding=vector)
    task = task._replace(num_classes=task.batch_size)
    return method.init(key, task, student, teacher)

  def sample(key, step, task, state):
    queries = method.sample(key, step, task, state)
    if queries.shape[1] != 1:
      raise ValueError(
        "it compares groups of rows, and a group is a query and its document"
        " here: set dataset.retrieval.documents=teacher, or choose another"
      )
    labels = jnp.asarray(task.labels)
    documents = len(labels) - len(index.anchors) + labels[queries]
    return jnp.concatenate([queries, documents], axis=1)

  def on_pairs(loss: Loss) -> Loss:
    def wrapped(params, state, student, batch, key, step):
      named = batch.labels[:, 0]
      own = jnp.argmax(named[:, None] == named[None], axis=1)[:, None]
      queries = jax.tree.map(lambda x: x[:, :1], (batch.index, batch.inputs))
      batch = batch._replace(
        index=queries[0],
        inputs=queries[1],
        labels=own,
        teachers=tuple(_told(index, one, own, named) for one in batch.teachers),
      )
      student = _scored(index, student, student.embedding)
      hits = jnp.argmax(student.logits, axis=-1) == own
      value, (state, metrics) = loss(params, state, student, batch, key, step)
      counted = {"train_accuracy": 100 * jnp.mean(hits)}
      return value, (state, {**counted, **metrics})

    return wrapped

  return method._replace(
    init=init,
    sample=sample,
    loss=on_pairs(method.loss),
    needs=method.needs if index.pairs else method.needs - {"embedding"},
    takes_top=index.pairs or method.takes_top,
    offset_target=no_offset,
    stages=tuple(
      stage._replace(loss=on_pairs(stage.loss)) for stage in method.stages
    ),
  )


def _scored(index: Index, outputs: Outputs, vectors: jax.Array) -> Outputs:
  """Outputs of [batch, 2, dim] whose logits are those of queries."""
  vectors = index.placed(vectors)
  logits = index.scores(vectors[:, :1], vectors[:, 1])
  return outputs._replace(logits=logits, embedding=vectors)


def _told(index: Index, outputs: Outputs, own, documents) -> Outputs:
  """The same of a teacher; `documents` are the numbers of the batch's."""
  if not index.pairs:
    return _scored(index, outputs, outputs.logits)
  outputs = jax.tree.map(lambda x: x[:, :1], outputs)
  logits = scores_of(outputs.logits, own, len(index.anchors), documents)
  both, vectors = pooled(outputs.embedding), None
  if both[0] is not None:
    vectors = index.placed(jnp.concatenate(both, axis=1))
  return outputs._replace(logits=logits, embedding=vectors)
