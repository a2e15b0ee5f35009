"""Answers about pairs of a query and a document: those of a cross encoder."""

import jax
import jax.numpy as jnp

from ckd_jax.methods._networks import TopK


def scores_of(
  answers: jax.Array | TopK,
  labels: jax.Array,
  count: int,
  documents: jax.Array | None = None,
) -> jax.Array:
  """Scores of documents; -inf, as ruled out, where nobody asked about a pair.

  A query of which no pair was asked about has its label.

  Args:
    answers: [..., count]; or a TopK of [..., k], which names those asked about.
    labels: int[...], columns of the queries' own documents.
    count: number of all documents.
    documents: int[m], numbers of those that are compared; None: all of them.

  Returns:
    float32[..., m].
  """
  scores = _given(answers, count, documents).astype(jnp.float32)
  own = jax.nn.one_hot(labels, scores.shape[-1], dtype=bool)
  some = jnp.any(scores != -jnp.inf, axis=-1, keepdims=True)
  return jnp.where(some, scores, jnp.where(own, 0.0, -jnp.inf))


def _given(answers, count: int, documents) -> jax.Array:
  if not isinstance(answers, TopK):
    return answers if documents is None else answers[..., documents]
  ids, scores = answers.ids, answers.log_probs
  if documents is None:
    nothing = jnp.full((*ids.shape[:-1], count), -jnp.inf, scores.dtype)
    return jnp.put_along_axis(nothing, ids, scores, axis=-1, inplace=False)
  same = ids[..., None] == jnp.expand_dims(documents, tuple(range(ids.ndim)))
  return jnp.max(jnp.where(same, scores[..., None], -jnp.inf), axis=-2)


def pooled(
  embedding: jax.Array | None,
) -> tuple[jax.Array, jax.Array] | tuple[None, None]:
  """Vectors of a query and of its document, which stand side by side.

  A cross encoder reads both at once; each vector is the mean over the tokens of
  its part (dual pooling, arXiv 2301.12005).

  Args:
    embedding: [..., 2 * dim]; None where there is none.

  Returns:
    Two of [..., dim]; or None twice.

  Raises:
    ValueError: its length is odd.
  """
  if embedding is None:
    return None, None
  if embedding.shape[-1] % 2:
    raise ValueError(
      f"embeddings of {embedding.shape[-1]} numbers: those of pairs are the"
      " query's and the document's, side by side, equally long"
    )
  query, document = jnp.split(embedding, 2, axis=-1)
  return query, document
