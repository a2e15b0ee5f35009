"""BSS as a method: inputs at the teacher's decision boundary teach, too."""

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Ask, Batch, Compose, Method, Outputs
from ckd_jax.methods._bss import (
  bss,
  bss_attack,
  bss_base,
  bss_targets,
  bss_weights,
)
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra


def _twice(key, batch: Batch) -> Batch:
  """Every image twice: the second one, without a label, is to be moved."""
  del key
  twice = jax.tree.map(lambda x: jnp.concatenate([x, x], axis=1), batch)
  labels = twice.labels.at[:, 1].set(-1)
  return twice._replace(index=batch.index, labels=labels)


def _mover(steps: int, step_size: float, bound: float) -> Compose:
  """Moves the second image of every pair."""

  def compose(key, batch: Batch, ask: Ask) -> Batch:
    images = batch.inputs[:, 0]

    def teacher(x):
      return ask.teacher(x).logits

    moved = bss_attack(
      teacher,
      images,
      bss_targets(key, teacher(images)),
      steps=steps,
      step_size=step_size,
      low=-bound,
      high=bound,
    )
    # Two passes to begin with, and one, with its gradient, for every move.
    asked = jnp.int32(len(images) * (2 + steps))
    inputs = jnp.stack([images, moved], axis=1)
    return batch._replace(inputs=inputs, asked=asked)

  return compose


def _begin(key, task, student, teacher):
  del key, student, teacher
  epoch = jnp.maximum(jnp.asarray(task.steps_per_epoch, jnp.int32), 1)
  return {}, {"steps_per_epoch": epoch, "asked": jnp.int32(0)}


def _mean_of(values: jax.Array, chosen: jax.Array) -> jax.Array:
  """The mean over the rows that are chosen, [n] each; 0 without any."""
  total = jnp.sum(jnp.where(chosen, values, 0.0))
  return total / jnp.maximum(jnp.sum(chosen), 1)


def make(
  *,
  weight: float = 1.0,
  temperature: float = 3.0,
  epochs: int = 80,
  base_size: int = 64,
  attack_steps: int = 10,
  step_size: float = 0.3,
  bound: float = 2.5,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """BSS (arXiv 1805.05532), with the numbers of its public code.

  A live teacher is attacked in every step: all images of the batch are moved
  towards another class, and those about which both networks are right, and
  disagree most, are learned from beside the images themselves. As published the
  weights of both fall over the epochs, the second to 0 at three quarters of
  them; the attack goes on. Moved images are a second pass of the student, as
  published, but all of them, so that its batch norm sees all.

  Args:
    weight: times both weights of `bss_weights`.
    temperature: T of both terms, above 0, without a factor T^2.
    epochs: passes over the rows over which the weights fall.
    base_size: the most moved images of a batch that are learned from.
    attack_steps: the most moves of an image.
    step_size: length of a move, in units of the gap between two logits.
    bound: largest magnitude of a moved pixel, in normalised units.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, attack_steps=attack_steps)
  at_least(1, epochs=epochs, base_size=base_size)
  above(0, temperature=temperature, step_size=step_size, bound=bound)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)
  at_least(0, **extra._asdict())

  def loss(params, state, student, batch, key, step):
    del params, key
    (clean, moved), (of_clean, of_moved) = (
      (logits[:, 0], logits[:, 1])
      for logits in (student.logits, batch.teachers[0].logits)
    )
    labels = batch.labels[:, 0]
    alone = batch._replace(
      labels=labels[:, None], teachers=(Outputs(of_clean[:, None]),)
    )
    is_base = bss_base(clean, of_clean, labels, size=base_size)
    attacked = bss(moved, of_moved, temperature=temperature)
    epoch = step // state["steps_per_epoch"] + 1
    weights = bss_weights(jnp.minimum(epoch / epochs, 1.0))
    value, metrics = weighted_sum(
      {
        "bss": (
          weight * weights[0],
          jnp.mean(bss(clean, of_clean, temperature=temperature)),
        ),
        "bss_attacked": (weight * weights[1], _mean_of(attacked, is_base)),
        **extra.terms(Outputs(clean[:, None]), alone),
      }
    )
    asked = jnp.int32(0) if batch.asked is None else batch.asked
    state = {**state, "asked": state["asked"] + asked}
    metrics["base_samples"] = jnp.sum(is_base, dtype=jnp.float32)
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=_begin,
    loss=loss,
    prepare=_twice,
    compose=_mover(attack_steps, step_size, bound),
    passes=(1, 1),
    inputs="images",
    live=True,
  )
