"""Plain logit matching, a baseline that most papers leave out."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import mean_counted, to_matching_float32


def logit_mse(
  student_logits: jax.Array, teacher_logits: jax.Array
) -> jax.Array:
  """Computes the mean over classes of (student - teacher)^2.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes], finite. No gradient.

  Returns:
    float32[n], one value per example.

  References:
    Ba and Caruana, "Do Deep Nets Really Need to be Deep?", arXiv 1312.6184,
    equation 1, divided by the number of classes.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  return jnp.mean(jnp.square(student - teacher), axis=-1)


def make(
  *,
  teacher_weight: float = 1.0,
  label_weight: float = 1.0,
  cross_entropy_weight: float = 0.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """Regression of the teacher's logits (arXiv 1312.6184) and of the labels.

  The label term is the one of arXiv 2311.02253 without the comparison: raw
  logits are regressed to 0 and 1.

  Args:
    teacher_weight: weight of the regression of the teacher's logits.
    label_weight: weight of the regression of one-hot labels.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a weight is negative or not finite.
  """
  at_least(0, teacher_weight=teacher_weight, label_weight=label_weight)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    student, labels = inputs.student.logits, inputs.batch.labels
    one_hot = jax.nn.one_hot(labels, student.shape[-1])
    to_teacher = logit_mse(student, inputs.teacher.logits)
    to_label = logit_mse(student, one_hot)
    return {
      "teacher": (teacher_weight, mean_counted(to_teacher, labels)),
      "label": (label_weight, mean_counted(to_label, labels)),
    }

  return make_method(terms, extra, answers="any")
