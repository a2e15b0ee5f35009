"""Activation boundaries: the student fires where the teacher fires."""

import chex
import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Stage
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._heads import regress, regressor
from ckd_jax.methods._maps import pairs
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant, float32


def activation_boundary(
  student_map: jax.Array, teacher_map: jax.Array, *, margin: float = 1.0
) -> jax.Array:
  """Computes the squared hinge around the teacher's activation boundary.

  Where the teacher is at or below 0, (student + margin)^2 above -margin; where
  it is above 0, (student - margin)^2 below margin; summed over all positions
  and channels. Only the teacher's signs count.

  Args:
    student_map: [n, h, w, c], before its ReLU.
    teacher_map: [n, h, w, c], before its ReLU. No gradient.
    margin: distance from the boundary from which nothing is penalised.

  Returns:
    float32[n], one value per example.

  References:
    Heo et al., arXiv 1811.03233, the alternative loss.
  """
  (student,), (teacher,) = float32(student_map), constant(teacher_map)
  chex.assert_equal_shape((student, teacher))
  short = margin + jnp.where(teacher > 0, -student, student)
  axes = tuple(range(1, student.ndim))
  return jnp.sum(jnp.square(jax.nn.relu(short)), axis=axes)


def make(
  *,
  weight: float = 1.0,
  margin: float = 1.0,
  stage_epochs: int = 30,
  stage_learning_rate: float = 0.05,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """AB (arXiv 1811.03233) with RepDistiller's weights and schedule.

  In a first stage the student's trunk learns the teacher's boundaries on every
  map but the stem's; the last map weighs 0.003, each earlier one half as much
  as the next. Then the student learns the labels alone. Where shapes differ, a
  convolution and batch norm connect them and are dropped after that stage.

  Args:
    weight: weight of the boundary loss, in the first stage only.
    margin: distance from the boundary from which nothing is penalised.
    stage_epochs: length of the first stage, in passes over the images.
    stage_learning_rate: constant learning rate of the first stage.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, margin=margin, stage_epochs=stage_epochs)
  above(0, stage_learning_rate=stage_learning_rate)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    del task
    middle = pairs(student, teacher, "preactivations")[1:]
    keys = jax.random.split(key, len(middle))
    connectors = {
      f"map{i}": regressor(key, ours.shape, theirs.shape)
      for i, (key, (ours, theirs)) in enumerate(
        zip(keys, middle, strict=True), start=1
      )
      if ours.shape[1:] != theirs.shape[1:]
    }
    return connectors, {}

  def imitate(params, state, student, batch, key, step):
    del key, step
    middle = pairs(student, batch.teachers[0], "preactivations")[1:]
    value = 0.0
    for i, (ours, theirs) in enumerate(middle, start=1):
      if f"map{i}" in params:
        ours = regress(params[f"map{i}"], ours, theirs.shape)
      short = activation_boundary(ours, theirs, margin=margin)
      value += 0.003 * 2.0 ** (i - len(middle)) * jnp.mean(short)
    value, metrics = weighted_sum({"ab": (weight, value)})
    return value, (state, metrics)

  def terms(inputs: Inputs):
    return {}

  stage = Stage(
    stage_epochs,
    stage_learning_rate,
    imitate,
    finish=lambda params, state: ({}, state),
  )
  return make_method(
    terms, extra, needs=("preactivations",), init=init, stages=(stage,)
  )
