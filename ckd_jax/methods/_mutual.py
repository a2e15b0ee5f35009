"""Mutual learning: students that teach each other."""

import jax
import jax.numpy as jnp

from ckd_jax.methods.kd import kd


def mutual(member_logits: jax.Array, *, temperature: float = 1.0) -> jax.Array:
  """Computes T^2 times the mean over j != i of KL(p_j || p_i) for member i.

  A peer is a teacher: it gets no gradient from member i, so that the gradient
  of the sum over members is that of each of them alone.

  Args:
    member_logits: [members, n, classes].
    temperature: T, above 0.

  Returns:
    float32[members, n], in nats; 0 for a single member.

  References:
    Zhang et al., arXiv 1706.00384.
  """
  if jnp.ndim(member_logits) != 3:
    raise ValueError(
      f"member_logits {jnp.shape(member_logits)} must be [members, n, classes]"
    )

  def of_member(mine):
    return jax.vmap(lambda peer: kd(mine, peer, temperature=temperature))(
      member_logits
    )

  pairs = jax.vmap(of_member)(member_logits)
  members = len(pairs)
  is_self = jnp.eye(members, dtype=bool)[:, :, None]
  return jnp.sum(jnp.where(is_self, 0.0, pairs), axis=1) / max(members - 1, 1)
