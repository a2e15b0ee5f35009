"""Decoupled KD: the labelled class and all the others, weighted apart."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import kl_divergence, mean_counted, to_matching_float32


def dkd(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  labels: jax.Array,
  *,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
) -> jax.Array:
  """Computes T^2 (alpha KL(label or not) + beta KL(among the other classes)).

  Both are KL(teacher || student) of probabilities at temperature T, computed
  from logits, never from probabilities: no gap between classes is too wide.
  With two classes, or where the teacher rules all others out, the second is 0.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes]; -inf rules a class out. No gradient.
    labels: int[n], the classes of the examples.
    alpha: weight of the labelled class against the rest.
    beta: weight of the relation among the rest.
    temperature: T, above 0.

  Returns:
    float32[n], one value per example, in nats.

  References:
    Zhao et al., arXiv 2203.08679, TCKD and NCKD.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  if jnp.shape(labels) != student.shape[:-1]:
    raise ValueError(
      f"labels {jnp.shape(labels)} must be one for each student answer, "
      f"{student.shape[:-1]}"
    )
  # The student's floor is finite: 0 times minus infinity is not a number.
  student = _split(student / temperature, labels, floor=-1e30)
  pair, others = _split(teacher / temperature, labels, floor=-jnp.inf)
  alone = pair[..., 1] == -jnp.inf
  others = jnp.where(alone[..., None], 0.0, others)
  target = kl_divergence(pair, student[0])
  rest = jnp.where(alone, 0.0, kl_divergence(others, student[1]))
  return temperature**2 * (alpha * target + beta * rest)


def _split(logits, labels, floor):
  """Logits of (label, any other class), and those of the other classes."""
  is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  others = jnp.where(is_label, floor, logits)
  label = jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1)
  rest = jax.nn.logsumexp(others, axis=-1)
  return jnp.stack([label, rest], axis=-1), others


def make(
  *,
  weight: float = 1.0,
  alpha: float = 1.0,
  beta: float = 8.0,
  temperature: float = 4.0,
  warmup_epochs: int = 20,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """DKD (arXiv 2203.08679); its weight grows linearly over `warmup_epochs`.

  Published values of beta on CIFAR-100 are 2 (resnet110 to resnet32, resnet56
  to resnet20), 6 (wrn to wrn, vgg13 to anything) and 8. The first epoch is
  number 1, as mdistiller counts; 0 warm-up epochs mean full weight throughout.

  Args:
    weight: final weight of the DKD term.
    alpha: weight of the labelled class against the rest.
    beta: weight of the relation among the rest.
    temperature: softening temperature, above 0.
    warmup_epochs: epochs over which the weight grows; 0 for none.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(
    0, weight=weight, alpha=alpha, beta=beta, warmup_epochs=warmup_epochs
  )
  above(0, temperature=temperature)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    del key, student, teacher
    epoch = jnp.maximum(jnp.asarray(task.steps_per_epoch, jnp.int32), 1)
    return {}, {"steps_per_epoch": epoch}

  def warmup(step, steps_per_epoch):
    if not warmup_epochs:
      return 1.0
    return jnp.minimum((step // steps_per_epoch + 1) / warmup_epochs, 1.0)

  def terms(inputs: Inputs):
    value = dkd(
      inputs.student.logits[:, 0],
      inputs.teacher.logits[:, 0],
      inputs.batch.labels[:, 0],
      alpha=alpha,
      beta=beta,
      temperature=temperature,
    )
    now = weight * warmup(inputs.step, inputs.state["steps_per_epoch"])
    value = mean_counted(value[:, None], inputs.batch.labels)
    return {"dkd": (now, value)}

  return make_method(terms, extra, init=init, answers="any")
