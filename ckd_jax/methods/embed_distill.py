"""EmbedDistill: the student's embeddings come to lie on the teacher's."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Outputs
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._heads import apply_linear, linear
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import normalise, safe_sqrt, to_matching_float32

DISTANCES = ("l2", "mse", "cosine")


def embedding_match(
  student: jax.Array, teacher: jax.Array, *, distance: str = "l2"
) -> jax.Array:
  """Computes how far each embedding is from the teacher's.

  Where the two are equal, and not zero, value and gradient are 0.

  Args:
    student: [n, dim], the student's embedding after its projection.
    teacher: [n, dim]. No gradient.
    distance: "l2", the norm of the difference, not its square; "mse", the mean
      square; "cosine", 1 - cosine, which is 1 where one of the two is zero.

  Returns:
    float32[n].

  Raises:
    ValueError: there is no such distance.

  References:
    Kim et al., arXiv 2301.12005, equations 7 and 8; the other distances as in
    sentence-transformers.
  """
  _check(distance)
  student, teacher = to_matching_float32(student, teacher)
  gap = jnp.square(student - teacher)
  if distance == "l2":
    return safe_sqrt(jnp.sum(gap, axis=-1))
  if distance == "mse":
    return jnp.mean(gap, axis=-1)
  # Half the squared distance on the sphere: 1 - cosine would round to 1e-7, and
  # even so a compiler may round the length of two equal rows otherwise.
  differs = jnp.any(student != teacher, axis=-1)
  student, teacher = normalise(student), normalise(teacher)
  gap = jnp.sum(jnp.square(student - teacher), axis=-1) / 2
  has_both = jnp.any(student != 0, axis=-1) & jnp.any(teacher != 0, axis=-1)
  return jnp.where(has_both, jnp.where(differs, gap, 0.0), 1.0)


def _check(distance: str) -> None:
  if distance not in DISTANCES:
    raise ValueError(
      f"unknown distance {distance!r}: choose one of {', '.join(DISTANCES)}"
    )


def make(
  *,
  weight: float = 1.0,
  score_weight: float = 1.0,
  distance: str = "l2",
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """EmbedDistill (arXiv 2301.12005), all weights 1 as published.

  Labels, scores and embeddings: the logits are a query's scores, one for every
  document. Where the widths differ, a linear projection of the student's
  embedding is trained with it. Documents that do not pass through the student
  are shared by both networks: equation 8 is 0. A symmetric student reads them,
  too, and the logits are scores of the documents of a batch.

  Args:
    weight: weight of the embeddings: of queries, equation 7, and of documents
      that the student reads, equation 8. At 0 a teacher needs none.
    score_weight: weight of the scores, equation 11: `kd` at temperature 1.
    distance: "l2", "mse" or "cosine", as in `embedding_match`.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, score_weight=score_weight)
  _check(distance)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    del task
    if not _has_both(student, teacher):
      return {}, {}
    inputs, outputs = student.embedding.shape[-1], teacher.embedding.shape[-1]
    if inputs == outputs:
      return {}, {}
    return {"projection": linear(key, inputs, outputs)}, {}

  def terms(inputs: Inputs):
    def gap(student, teacher):
      if "projection" in inputs.params:
        student = apply_linear(inputs.params["projection"], student)
      return jnp.mean(embedding_match(student, teacher, distance=distance))

    scores = kd(inputs.student.logits, inputs.teacher.logits, temperature=1.0)
    found = {}
    if _has_both(inputs.student, inputs.teacher):
      found["embedding"] = (weight, gap(*inputs.embeddings))
    found["score"] = (score_weight, jnp.mean(scores))
    if inputs.documents is not None:
      found["document_embedding"] = (weight, gap(*inputs.documents))
    return found

  needs = ("embedding",) if weight else ()
  return make_method(terms, extra, needs=needs, init=init)


def _has_both(student: Outputs, teacher: Outputs) -> bool:
  """Whether there are embeddings to compare; at weight 0 there need not be."""
  return student.embedding is not None and teacher.embedding is not None
