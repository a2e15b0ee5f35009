"""Knowledge distillation of softened probabilities (Hinton et al., 2015)."""

import jax

from ckd_jax import sampling
from ckd_jax.methods import Method, stateless
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._top import outcomes
from ckd_jax.numerics import (
  cross_entropy,
  kl_divergence,
  mean_counted,
  to_matching_float32,
)


def kd(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  temperature: float = 4.0,
) -> jax.Array:
  """Computes T^2 * KL(softmax(teacher / T) || softmax(student / T)).

  The factor T^2 keeps the gradient's size independent of the temperature.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes]; -inf rules a class out. No gradient.
    temperature: T, above 0.

  Returns:
    float32[n], one value per example, in nats.

  References:
    Hinton, Vinyals and Dean, arXiv 1503.02531, section 2.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  divergence = kl_divergence(teacher / temperature, student / temperature)
  return divergence * temperature**2


def make(
  *,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 1.0,
  temperature: float = 4.0,
) -> Method:
  """KD with labels (arXiv 1503.02531), both terms at weight 1.

  RepDistiller's weights are cross_entropy_weight=0.1, kd_weight=0.9. Which
  kd_weight arXiv 2311.02253 compared with is not published: its code has 0 by
  default and 1 in the sweeps of other methods. With CKD it is the method `ckd`
  at a kd_weight and a cross_entropy_weight.

  Args:
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of the softened divergence.
    temperature: softening temperature, above 0.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, cross_entropy_weight=cross_entropy_weight, kd_weight=kd_weight)
  above(0, temperature=temperature)

  def loss(params, state, student, batch, key, step):
    del params, key, step
    (teacher,) = batch.teachers
    label_term = cross_entropy(student.logits, batch.labels)
    teacher_term = kd(
      *outcomes(student.logits, teacher.logits), temperature=temperature
    )
    value, metrics = weighted_sum(
      {
        "cross_entropy": (
          cross_entropy_weight,
          mean_counted(label_term, batch.labels),
        ),
        "kd": (kd_weight, mean_counted(teacher_term, batch.labels)),
      }
    )
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=stateless,
    loss=loss,
    answers="any",
    takes_top=True,
  )
