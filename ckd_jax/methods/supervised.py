"""Labels alone: the student without a teacher, a baseline."""

from ckd_jax import sampling
from ckd_jax.methods import Method, stateless
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.numerics import cross_entropy, mean_counted


def make() -> Method:
  """Cross-entropy with the labels. No paper: the baseline."""

  def loss(params, state, student, batch, key, step):
    del params, key, step
    value = cross_entropy(student.logits, batch.labels)
    value = mean_counted(value, batch.labels)
    value, metrics = weighted_sum({"cross_entropy": (1.0, value)})
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=stateless,
    loss=loss,
    needs=frozenset(),
    answers="any",
  )
