"""Answers about the k most probable tokens, compared as k + 1 outcomes."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import TopK
from ckd_jax.numerics import float32


def outcomes(
  student_logits: jax.Array, teacher: jax.Array | TopK
) -> tuple[jax.Array, jax.Array]:
  """What a divergence of probabilities compares.

  With k answers of a teacher these are k tokens, and all others as one outcome:
  a divergence of them is at most the one of all tokens, and equal to it where
  k is the whole vocabulary.

  Args:
    student_logits: [..., classes].
    teacher: [..., classes], or a TopK of [..., k].

  Returns:
    Both as logits [..., classes], unchanged, or [..., k + 1].
  """
  if not isinstance(teacher, TopK):
    return student_logits, teacher
  (student, known, rest) = float32(
    student_logits, teacher.log_probs, teacher.rest
  )
  student = jax.nn.log_softmax(student)
  named = jnp.take_along_axis(student, teacher.ids, axis=-1)
  is_named = jnp.any(
    jax.nn.one_hot(teacher.ids, student.shape[-1], dtype=bool), axis=-2
  )
  # Finite where nothing is left: 0 times minus infinity is not a number.
  others = jax.nn.logsumexp(jnp.where(is_named, -1e30, student), axis=-1)
  is_left = rest > 0
  rest = jnp.where(is_left, jnp.log(jnp.where(is_left, rest, 1.0)), -jnp.inf)
  return (
    jnp.concatenate([named, others[..., None]], axis=-1),
    jnp.concatenate([known, rest[..., None]], axis=-1),
  )
