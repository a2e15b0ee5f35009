"""ONE: the branches of a network learn from their gated ensemble."""

import jax
import jax.numpy as jnp

from ckd_jax.methods._heads import apply_batch_norm, apply_linear
from ckd_jax.numerics import constant, float32

_ADDED = 1e-7  # to every target, as the public code adds it


def one_gate(
  features: jax.Array,
  weight: jax.Array,
  bias: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  *,
  epsilon: float = 1e-5,
) -> jax.Array:
  """Computes how much each branch counts, softmax(ReLU(BN(features W + b))).

  The batch norm takes the statistics of the batch.

  Args:
    features: [n, dim], what the branches share, averaged over pixels.
    weight: [dim, branches].
    bias: [branches]; the batch norm removes it again.
    scale: [branches], of the batch norm.
    offset: [branches], of the batch norm.
    epsilon: added to the variance.

  Returns:
    float32[n, branches], rows that sum to 1.

  References:
    Lan et al., arXiv 1806.04606, and its public code.
  """
  weight, bias, scale, offset = float32(weight, bias, scale, offset)
  if not bias.shape == scale.shape == offset.shape == weight.shape[1:]:
    raise ValueError(
      f"bias {bias.shape}, scale {scale.shape} and offset {offset.shape} must"
      f" be [branches] of weight {weight.shape}, [dim, branches]"
    )
  scores = apply_linear({"weight": weight, "bias": bias}, *float32(features))
  norm = {"scale": scale, "offset": offset}
  normal = apply_batch_norm(norm, scores, epsilon)
  # None of n numbers is further than sqrt(n) deviations from their mean, but
  # for rounding, which differs where a compiled program computes them twice:
  # a softmax would overflow, its highest score being that of the other time.
  # The bounds are a little wider, since on them a clip halves the gradient: at
  # scale 0 all scores would be there.
  reach = jnp.abs(scale) * len(scores) ** 0.5 + 1e-6 * (1 + jnp.abs(offset))
  low, high = offset - reach, offset + reach
  normal = jnp.clip(normal, low[None], high[None])
  return jax.nn.softmax(jax.nn.relu(normal))


def one_ensemble(branch_logits: jax.Array, gate: jax.Array) -> jax.Array:
  """Computes the teacher of the branches, sum_k gate_k z_k.

  Args:
    branch_logits: [branches, n, classes].
    gate: [n, branches], from `one_gate`.

  Returns:
    float32[n, classes].

  References:
    Lan et al., arXiv 1806.04606.
  """
  logits, gate = float32(branch_logits, gate)
  if gate.shape != logits.shape[1::-1]:
    raise ValueError(
      f"gate {gate.shape} must be [n, branches] of branch_logits"
      f" {logits.shape}, [branches, n, classes]"
    )
  return jnp.sum(gate.T[:, :, None] * logits, axis=0)


def one(
  branch_logits: jax.Array,
  ensemble_logits: jax.Array,
  *,
  temperature: float = 3.0,
) -> jax.Array:
  """Computes T^2 sum_c q (log q - log p_k), with q = p_e + 1e-7.

  As in the public code q is not normalised again, so that equal logits give
  about classes * 1e-7 * T^2, not 0.

  Args:
    branch_logits: [branches, n, classes].
    ensemble_logits: [n, classes], from `one_ensemble`. No gradient.
    temperature: T, above 0.

  Returns:
    float32[branches, n], in nats.

  References:
    Lan et al., arXiv 1806.04606, and its public code.
  """
  (logits,), (ensemble,) = float32(branch_logits), constant(ensemble_logits)
  if ensemble.shape != logits.shape[1:]:
    raise ValueError(
      f"ensemble_logits {ensemble.shape} must have the shape of a branch's,"
      f" {logits.shape[1:]}"
    )
  target = jax.nn.softmax(ensemble / temperature)[None] + _ADDED
  own = jax.nn.log_softmax(logits / temperature)
  return temperature**2 * jnp.sum(target * (jnp.log(target) - own), axis=-1)
