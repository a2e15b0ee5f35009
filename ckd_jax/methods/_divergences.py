"""Divergences between answers, one value per position (GKD, DistiLLM).

Both networks are compared at every position of a text: positions that do not
count are left out by `counted`. None of them has the factor T^2 of `kd`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ckd_jax.methods.kd import kd
from ckd_jax.numerics import kl_divergence, to_matching_float32


def generalized_jsd(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  beta: float | jax.Array = 0.5,
  temperature: float = 1.0,
) -> jax.Array:
  """Computes beta KL(p_t || m) + (1 - beta) KL(p_s || m).

  m = beta p_t + (1 - beta) p_s, probabilities at temperature T. At the ends,
  where that is 0, it is its limit after division by beta (1 - beta): at beta 0
  KL(p_t || p_s), at beta 1 KL(p_s || p_t).

  Args:
    student_logits: [..., classes].
    teacher_logits: [..., classes]; below beta 1, -inf rules a class out. No
      gradient.
    beta: weight of the teacher in the mixture, 0 to 1.
    temperature: T, above 0.

  Returns:
    float32[...], in nats.

  References:
    Agarwal et al., arXiv 2306.13649; the ends as in TRL.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  student, teacher = student / temperature, teacher / temperature
  beta = jnp.asarray(beta, jnp.float32)
  mixture = _mixture(teacher, student, beta)
  # At the ends m is one of the two, and its own divergence is 0: what is left
  # has weight 1.
  of_teacher = jnp.where(beta == 0, 1.0, beta)
  of_student = jnp.where(beta == 1, 1.0, 1 - beta)
  return of_teacher * kl_divergence(
    teacher, mixture
  ) + of_student * kl_divergence(student, mixture)


def reverse_kl(
  student_logits: jax.Array, teacher_logits: jax.Array
) -> jax.Array:
  """Computes KL(p_s || p_t), which seeks one mode of the teacher.

  The forward divergence is `kd` at temperature 1.

  Args:
    student_logits: [..., classes].
    teacher_logits: [..., classes], finite. No gradient.

  Returns:
    float32[...], in nats.

  References:
    Gu et al., arXiv 2306.08543.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  return kl_divergence(student, teacher)


def skew_kl(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  skew: float | jax.Array = 0.1,
) -> jax.Array:
  """Computes KL(p_t || skew p_t + (1 - skew) p_s).

  Args:
    student_logits: [..., classes].
    teacher_logits: [..., classes]; -inf rules a class out. No gradient.
    skew: share of the teacher in the mixture, 0 to 1; 0 is the forward KL.

  Returns:
    float32[...], in nats; the teacher's entropy, which the public code leaves
    out, is in it.

  References:
    Ko et al., arXiv 2402.03898.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  return kl_divergence(teacher, _mixture(teacher, student, skew))


def skew_reverse_kl(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  skew: float | jax.Array = 0.1,
) -> jax.Array:
  """Computes KL(p_s || (1 - skew) p_t + skew p_s).

  Args:
    student_logits: [..., classes].
    teacher_logits: [..., classes]; where skew is above 0, -inf rules a class
      out. No gradient.
    skew: share of the student in the mixture, 0 to 1; 0 is the reverse KL.

  Returns:
    float32[...], in nats.

  References:
    Ko et al., arXiv 2402.03898, with the skew of its public code.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  return kl_divergence(student, _mixture(student, teacher, skew))


def by_name(beta: float, skew: float) -> dict[str, Callable]:
  """Name -> (student's logits, teacher's) -> one value for each position."""
  return {
    "jsd": lambda s, t: generalized_jsd(s, t, beta=beta),
    "kd": lambda s, t: kd(s, t, temperature=1.0),
    "reverse_kl": reverse_kl,
    "skew_kl": lambda s, t: skew_kl(s, t, skew=skew),
    "skew_reverse_kl": lambda s, t: skew_reverse_kl(s, t, skew=skew),
  }


def _mixture(first, second, share):
  """log(share softmax(first) + (1 - share) softmax(second)), from logits."""
  share = jnp.asarray(share, jnp.float32)
  own = jax.nn.log_softmax(first)
  # A class that `first` rules out weighs nothing in a divergence from it: the
  # mixture is kept finite there, where `second` has no share or no such class.
  first = jnp.where(
    own == -jnp.inf, jnp.finfo(jnp.float32).min, own + jnp.log(share)
  )
  second = jax.nn.log_softmax(second) + jnp.log1p(-share)
  return jnp.logaddexp(first, second)
