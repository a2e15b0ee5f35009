"""Flow of solution procedure: inner products of two stages' channels."""

import itertools

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Stage
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._maps import pairs, same_size
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_rows, constant, float32


def fsp(
  student_bottom: jax.Array,
  student_top: jax.Array,
  teacher_bottom: jax.Array,
  teacher_top: jax.Array,
) -> jax.Array:
  """Computes the mean squared difference of two FSP matrices.

  The matrix of a network is [i, j] = mean over positions of channel i of its
  bottom map times channel j of its top map, the larger of the two averaged down
  first.

  Args:
    student_bottom: [n, h, w, c], the student's earlier map.
    student_top: [n, h', w', c'], its later map.
    teacher_bottom: [n, ., ., c], the teacher's earlier map. No gradient.
    teacher_top: [n, ., ., c'], its later map. No gradient.

  Returns:
    float32[n], one value per example.

  Raises:
    ValueError: the two networks differ in channels.

  References:
    Yim et al., A Gift from Knowledge Distillation, CVPR 2017, equations 1 and
    2, as a mean over the matrix.
  """
  _check_channels((student_bottom, teacher_bottom), (student_top, teacher_top))
  check_rows(student_bottom, teacher_bottom)
  student = _matrix(student_bottom, student_top)
  teacher = _matrix(*constant(teacher_bottom, teacher_top))
  return jnp.mean(jnp.square(student - teacher), axis=(1, 2))


def _matrix(bottom: jax.Array, top: jax.Array) -> jax.Array:
  bottom, top = (
    x.reshape(len(x), -1, x.shape[-1])  # [n, h * w, c]
    for x in same_size(bottom, top)
  )
  product = jnp.einsum("npi,npj->nij", bottom, top, precision="highest")
  return product / bottom.shape[1]


def _check_channels(*maps) -> None:
  student, teacher = ([pair[i].shape[-1] for pair in maps] for i in (0, 1))
  if student != teacher:
    raise ValueError(
      f"fsp needs a teacher with the student's channels: {student} in the "
      f"student, {teacher} in the teacher"
    )


def make(
  *,
  weight: float = 1.0,
  stage_epochs: int = 30,
  stage_learning_rate: float = 0.05,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """FSP (Yim et al., CVPR 2017) by the schedule of arXiv 1910.10699's code.

  In a first stage the student's trunk learns the matrices of neighbouring maps,
  stem included; then it learns the labels alone. RepDistiller's -b 50 is
  multiplied with nothing.

  Args:
    weight: weight of the loss on FSP matrices, in the first stage only.
    stage_epochs: length of the first stage, in passes over the images.
    stage_learning_rate: constant learning rate of the first stage.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, stage_epochs=stage_epochs)
  above(0, stage_learning_rate=stage_learning_rate)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    del key, task
    _check_channels(*pairs(student, teacher))
    return {}, {}

  def imitate(params, state, student, batch, key, step):
    del params, key, step
    # Float32 from here on: a map serves twice, and the sum of two gradients may
    # be more than float16 holds.
    maps = [float32(*pair) for pair in pairs(student, batch.teachers[0])]
    value = sum(
      jnp.mean(fsp(bottom[0], top[0], bottom[1], top[1]))
      for bottom, top in itertools.pairwise(maps)
    )
    value, metrics = weighted_sum({"fsp": (weight, value)})
    return value, (state, metrics)

  def terms(inputs: Inputs):
    return {}

  return make_method(
    terms,
    extra,
    needs=("maps",),
    init=init,
    stages=(Stage(stage_epochs, stage_learning_rate, imitate),),
  )
