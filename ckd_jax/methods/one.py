"""ONE as a method: the branches of a network learn from their ensemble."""

import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Method
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._one import one
from ckd_jax.methods._ramp import ramp_up
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.numerics import cross_entropy


def make(
  *,
  weight: float = 1.0,
  temperature: float = 3.0,
  ramp_epochs: int = 80,
  cross_entropy_weight: float = 1.0,
) -> Method:
  """On-the-fly native ensemble (arXiv 1806.04606): no teacher but the ensemble.

  The student is a network with branches and a gate, such as one_resnet32, whose
  file is deployed as its first branch, or one_resnet32_e, as the ensemble. The
  loss is the sum over branches and ensemble of cross-entropy, and over branches
  of `one`, whose weight grows with the epochs by `ramp_up`.

  Args:
    weight: weight of `one` at the end of the ramp.
    temperature: T of both answers, above 0; the divergence is times T^2.
    ramp_epochs: passes over the rows until then; 0 is no ramp.
    cross_entropy_weight: weight of the cross-entropy with the labels.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, cross_entropy_weight=cross_entropy_weight)
  at_least(0, ramp_epochs=ramp_epochs)
  above(0, temperature=temperature)

  def init(key, task, student, teacher):
    del key, student, teacher
    epoch = jnp.maximum(jnp.asarray(task.steps_per_epoch, jnp.int32), 1)
    return {}, {"steps_per_epoch": epoch}

  def loss(params, state, student, batch, key, step):
    del params, key
    logits = jnp.stack(student.branches)[:, :, 0]
    labels = jnp.broadcast_to(batch.labels[None, :, 0], logits.shape[:2])
    divergence = one(logits[:-1], logits[-1], temperature=temperature)
    ramp = ramp_up(step // state["steps_per_epoch"], ramp_epochs)
    value, metrics = weighted_sum(
      {
        "cross_entropy": (
          cross_entropy_weight,
          jnp.sum(jnp.mean(cross_entropy(logits, labels), axis=1)),
        ),
        "one": (weight * ramp, jnp.sum(jnp.mean(divergence, axis=1))),
      }
    )
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=init,
    loss=loss,
    needs=frozenset(),
    branches="ensemble",
  )
