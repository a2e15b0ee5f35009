"""Mixes the images of a group, and compares the answers about the mixture."""

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method, Prepare
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._groups import fixed_groups
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods.ckd import ckd_all
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import constant, cross_entropy, float32


def blend(images: jax.Array, weights: jax.Array) -> jax.Array:
  """Averages the images of every group by its weights.

  Args:
    images: [batch, group, h, w, c].
    weights: [batch, group], each row with the sum 1.

  Returns:
    [batch, 1, h, w, c].
  """
  weights = weights[:, :, None, None, None].astype(images.dtype)
  return jnp.sum(weights * images, axis=1, keepdims=True)


def box(key: jax.Array, shape, sides) -> jax.Array:
  """Draws a box around a random pixel, cut off at the border.

  Args:
    key: draws the pixel.
    shape: (height, width) of the image.
    sides: (height, width) of the box in pixels; odd ones lose a pixel.

  Returns:
    bool[height, width], true inside the box.
  """
  inside = []
  for axis_key, size, side in zip(
    jax.random.split(key), shape, sides, strict=True
  ):
    position, centre = (
      jnp.arange(size),
      jax.random.randint(axis_key, (), 0, size),
    )
    half = side // 2
    inside.append((position >= centre - half) & (position < centre + half))
  return inside[0][:, None] & inside[1][None]


def paste(
  key: jax.Array, images: jax.Array, lam: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Pastes a box of about 1 - lam of the second image over the first.

  Args:
    key: draws the box, one for the batch.
    images: [batch, 2, h, w, c].
    lam: share of the first image to keep, 0 to 1.

  Returns:
    [batch, 1, h, w, c], and the share of pixels that was kept.
  """
  shape = images.shape[2:4]
  sides = [(jnp.sqrt(1 - lam) * size).astype(jnp.int32) for size in shape]
  hole = box(key, shape, sides)
  mixed = jnp.where(hole[None, None, :, :, None], images[:, 1:], images[:, :1])
  return mixed, 1 - jnp.mean(hole.astype(jnp.float32))


def soft_cross_entropy(
  student_logits: jax.Array, teacher_logits: jax.Array
) -> jax.Array:
  """Computes -sum_c softmax(teacher)_c log softmax(student)_c.

  Args:
    student_logits: [..., classes].
    teacher_logits: [..., classes]; -inf rules a class out. No gradient.

  Returns:
    float32[...], in nats.
  """
  (student,) = float32(student_logits)
  (teacher,) = constant(teacher_logits)
  return -jnp.sum(
    jax.nn.softmax(teacher) * jax.nn.log_softmax(student), axis=-1
  )


def mixing(
  group: int,
  prepare: Prepare,
  *,
  weight: float,
  cross_entropy_weight: float,
  kd_weight: float,
  ckd_weight: float,
  temperature: float,
  max_groups: int,
) -> Method:
  """Builds a method on mixed images and the answers to the original ones.

  Every term but CKD is the sum over the group of batch.weights times the term
  of that member, averaged over the batch. CKD compares mixed images with each
  other; its target mixes the logits, and the labels, as the images were mixed.
  A live teacher sees the mixed image itself: its one answer then stands for
  every member.

  Args:
    group: how many images are mixed into one.
    prepare: mixes the images of a batch, to images [batch, 1, h, w, c] and
      weights [batch, group].
    weight: weight of the cross-entropy with the teacher's probabilities.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of the KD term.
    ckd_weight: weight of `ckd_all` over pairs of mixed images.
    temperature: softening temperature of the KD term, above 0.
    max_groups: length of the list of groups, drawn once.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(
    0,
    weight=weight,
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    ckd_weight=ckd_weight,
  )
  above(0, temperature=temperature)
  at_least(1, max_groups=max_groups)

  sample, init = fixed_groups(1, group - 1, max_groups)

  def loss(params, state, student, batch, key, step):
    shape = *batch.labels.shape, student.logits.shape[-1]
    logits, answers = (
      jnp.broadcast_to(x, shape)
      for x in (student.logits, batch.teachers[0].logits)
    )

    def mixed(values):
      return jnp.mean(jnp.sum(batch.weights * values, axis=1))

    def blended(target):
      return jnp.sum(batch.weights[:, :, None] * target, axis=1)

    terms = {}
    if cross_entropy_weight:
      value = mixed(cross_entropy(logits, batch.labels))
      terms["cross_entropy"] = (cross_entropy_weight, value)
    if weight:
      terms["teacher"] = (weight, mixed(soft_cross_entropy(logits, answers)))
    if kd_weight:
      value = mixed(kd(logits, answers, temperature=temperature))
      terms["kd"] = (kd_weight, value)
    if ckd_weight:
      one_hot = jax.nn.one_hot(batch.labels, shape[-1])
      value = sum(
        ckd_all(student.logits[:, 0], blended(target))
        for target in (answers, one_hot)
      )
      terms["ckd"] = (ckd_weight, value)
    value, metrics = weighted_sum(terms)
    return value, (state, metrics)

  return Method(
    sample=sample, init=init, loss=loss, prepare=prepare, inputs="images"
  )
