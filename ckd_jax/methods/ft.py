"""Factor transfer: a translator of the student imitates a paraphraser."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Stage
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._heads import (
  apply_batch_norm,
  apply_conv,
  apply_deconv,
  batch_norm,
  conv,
  deconv,
)
from ckd_jax.methods._maps import attention, same_size
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant


def factor_transfer(
  student_map: jax.Array, teacher_map: jax.Array, *, power: int = 2
) -> jax.Array:
  """Computes the mean absolute difference of two normalised factors.

  A factor is first made the mean over channels of x^power at every position, as
  one vector of length 1; the larger map is averaged down before that.

  Args:
    student_map: [n, h, w, c], after the translator.
    teacher_map: [n, h', w', c'], after the paraphraser. No gradient.
    power: exponent, 1 or more; an odd one keeps the sign of negative values.

  Returns:
    float32[n], one value per example; a factor of zeros stays zero.

  References:
    Kim, Park and Kwak, arXiv 1802.04977, the factor transfer loss with p = 1,
    on means over channels as RepDistiller takes them.
  """
  student, teacher = same_size(student_map, *constant(teacher_map))
  gap = attention(student, power) - attention(teacher, power)
  return jnp.mean(jnp.abs(gap), axis=1)


def _translator(key, inputs: int, factors: int):
  keys = jax.random.split(key, 3)
  widths = ((inputs, inputs), (inputs, factors), (factors, factors))
  return tuple(
    {"conv": conv(key, *width, bias=False), "norm": batch_norm(width[1])}
    for key, width in zip(keys, widths, strict=True)
  )


def _translate(params, x: jax.Array) -> jax.Array:
  for layer in params:
    x = apply_conv(layer["conv"], x, padding=1)
    x = jax.nn.leaky_relu(apply_batch_norm(layer["norm"], x), 0.1)
  return x


def _paraphraser(key, channels: int, factors: int):
  keys = jax.random.split(key, 6)
  down = ((channels, channels), (channels, factors), (factors, factors))
  up = ((factors, factors), (factors, channels), (channels, channels))
  return {
    "encoder": tuple(
      conv(key, *width) for key, width in zip(keys[:3], down, strict=True)
    ),
    "decoder": tuple(
      deconv(key, *width) for key, width in zip(keys[3:], up, strict=True)
    ),
  }


def _paraphrase(layers, apply, x: jax.Array) -> jax.Array:
  for layer in layers:
    x = jax.nn.leaky_relu(apply(layer, x, padding=1), 0.1)
  return x


def make(
  *,
  weight: float = 200.0,
  power: int = 2,
  factor_rate: float = 0.5,
  stage_epochs: int = 30,
  stage_learning_rate: float = 0.01,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """FT (arXiv 1802.04977) with RepDistiller's weight and schedule.

  In a first stage the paraphraser, an auto-encoder, learns to reconstruct the
  teacher's last map; then it is frozen, and the translator learns with the
  student.

  Args:
    weight: weight of the factor transfer loss.
    power: exponent of the factors, 1 or more.
    factor_rate: channels of a factor, as a share of the teacher's.
    stage_epochs: length of the first stage, in passes over the images.
    stage_learning_rate: constant learning rate of the first stage.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, stage_epochs=stage_epochs)
  at_least(1, power=power)
  above(0, factor_rate=factor_rate, stage_learning_rate=stage_learning_rate)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    del task
    paraphraser_key, translator_key = jax.random.split(key)
    inputs, channels = student.maps[-1].shape[-1], teacher.maps[-1].shape[-1]
    factors = max(1, int(factor_rate * channels))
    return (
      {"paraphraser": _paraphraser(paraphraser_key, channels, factors)},
      {"translator": _translator(translator_key, inputs, factors)},
    )

  def reconstruct(params, state, student, batch, key, step):
    del student, key, step
    (last,) = constant(batch.teachers[0].maps[-1][:, 0])
    factor = _paraphrase(params["paraphraser"]["encoder"], apply_conv, last)
    again = _paraphrase(params["paraphraser"]["decoder"], apply_deconv, factor)
    value = jnp.mean(jnp.square(again - last))
    value, metrics = weighted_sum({"reconstruction": (1.0, value)})
    return value, (state, metrics)

  def freeze(params, state):
    return (
      {"translator": state["translator"]},
      {"paraphraser": params["paraphraser"]},
    )

  def terms(inputs: Inputs):
    # Params and state exchange the two when the first stage ends.
    heads = {**inputs.state, **inputs.params}
    ours, theirs = inputs.student.maps[-1][:, 0], inputs.teacher.maps[-1][:, 0]
    value = factor_transfer(
      _translate(heads["translator"], ours),
      _paraphrase(heads["paraphraser"]["encoder"], apply_conv, theirs),
      power=power,
    )
    return {"ft": (weight, jnp.mean(value))}

  stage = Stage(
    stage_epochs,
    stage_learning_rate,
    reconstruct,
    trains_student=False,
    finish=freeze,
  )
  return make_method(terms, extra, needs=("maps",), init=init, stages=(stage,))
