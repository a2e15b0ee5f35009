"""Plain logit matching: the baseline that most papers leave out."""

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Method, stateless
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._terms import combined
from ckd_jax.numerics import alike


def logit_mse(
  student_logits: jax.Array, teacher_logits: jax.Array
) -> jax.Array:
  """Mean over classes of (student - teacher)^2, per example.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes], finite. No gradient.

  Returns:
    float32[n].

  References:
    Ba and Caruana, "Do Deep Nets Really Need to be Deep?", arXiv 1312.6184,
    equation 1, divided by the number of classes.
  """
  student, teacher = alike(student_logits, teacher_logits)
  return jnp.mean(jnp.square(student - teacher), axis=-1)


def make(
  *,
  teacher_weight: float = 1.0,
  label_weight: float = 1.0,
  cross_entropy_weight: float = 0.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """Regression of the teacher's logits (arXiv 1312.6184) and of the one-hots.

  The label term is the one of arXiv 2311.02253 without the comparison: raw
  logits are regressed to 0 and 1.

  Raises:
    ValueError: a weight below 0.
  """
  at_least(0, teacher_weight=teacher_weight, label_weight=label_weight)
  total = combined(
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    ckd_weight=ckd_weight,
  )

  def loss(params, state, student, batch, key, step):
    del params, key, step
    (teacher,) = batch.teachers
    one_hot = jax.nn.one_hot(batch.labels, student.logits.shape[-1])
    value, metrics = total(
      student,
      batch,
      teacher=(
        teacher_weight,
        jnp.mean(logit_mse(student.logits, teacher.logits)),
      ),
      label=(label_weight, jnp.mean(logit_mse(student.logits, one_hot))),
    )
    return value, (state, metrics)

  return Method(sample=sampling.batches, init=stateless, loss=loss)
