"""Comparative Knowledge Distillation: matches differences between answers.

`ckd` compares one group, as published. `ckd_all` is its mean over every group
of a batch, in closed form. `make` offers both as estimators, and one between.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Method, OffsetTarget, no_offset, stateless
from ckd_jax.methods import _groups as groups
from ckd_jax.methods import _offset as offsets
from ckd_jax.methods._checks import above, at_least
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods.kd import kd
from ckd_jax.numerics import (
  cross_entropy,
  kl_divergence,
  mean_counted,
  to_matching_float32,
)


def ckd(
  student_positive: jax.Array,
  student_negative: jax.Array,
  teacher_positive: jax.Array,
  teacher_negative: jax.Array,
  *,
  mix: str | float = "difference",
  divergence: str = "mse",
  temperature: float = 4.0,
) -> jax.Array:
  """Computes the comparative loss of ONE group; vmap it over groups.

  Each network's two sides are averaged and mixed, and the results compared:
  mse is mean over classes of (mix(student) - mix(teacher))^2, kl is
  T^2 KL(softmax(mix(teacher) / T) || softmax(mix(student) / T)).

  Args:
    student_positive: [positives, classes].
    student_negative: [negatives, classes].
    teacher_positive: [positives, classes]; logits, or one-hot labels for the
      label term. No gradient.
    teacher_negative: [negatives, classes]. No gradient.
    mix: "difference" of the side means, their "mean" (ckd_add), or a number
      lam for lam * positive + (1 - lam) * negative (ckd_mixup).
    divergence: "mse", or "kl" (the first version of the paper).
    temperature: T of kl, above 0.

  Returns:
    float32 scalar.

  Raises:
    ValueError: an unknown mix or divergence, or sides of different shapes.

  References:
    arXiv 2311.02253, the comparative loss; v1 for kl.
  """
  positive_weight, negative_weight = _mix_weights(mix)

  def mixed(positive, negative):
    return positive_weight * jnp.mean(positive, axis=0) + (
      negative_weight * jnp.mean(negative, axis=0)
    )

  positive = to_matching_float32(student_positive, teacher_positive)
  negative = to_matching_float32(student_negative, teacher_negative)
  for side in (*positive, *negative):
    if side.ndim != 2 or not len(side):
      raise ValueError(f"a side is [members, classes], not {side.shape}")
  student, teacher = map(mixed, positive, negative)
  if divergence == "mse":
    return jnp.mean(jnp.square(student - teacher))
  if divergence == "kl":
    scaled = kl_divergence(teacher / temperature, student / temperature)
    return scaled * temperature**2
  raise ValueError(f'divergence must be "mse" or "kl", not {divergence!r}')


def ckd_all(
  student: jax.Array,
  teacher: jax.Array,
  *,
  positives: int = 1,
  negatives: int = 1,
  mix: str | float = "difference",
  mean_weight: float = 0.0,
  counted: jax.Array | None = None,
) -> jax.Array:
  """Computes the mean of `ckd` over every group of a batch, in closed form.

  With d = student - teacher and S2 = sum_i |d_i - mean(d)|^2 / (n - 1), the
  difference of side means has the mean square (1/p + 1/n') * S2 over all
  choices of p positives and n' negatives. For a * positive + b * negative it is
  (a+b)^2 |mean(d)|^2 + S2 (a^2/p + b^2/n' - (a+b)^2/n).

  What no difference sees is mean(d); `mean_weight` adds it back:
  (1/p + 1/n') * (S2 + mean_weight * |mean(d)|^2), comparison at 0 and, up to
  the factor and n/(n-1), plain logit matching at 1.

  Args:
    student: [n, classes], logits.
    teacher: [n, classes], finite; logits or one-hot labels. No gradient.
    positives: p, images on the first side.
    negatives: n', images on the second side.
    mix: "difference", "mean" or a number, as in `ckd`.
    mean_weight: weight of the batch mean; for mix "difference" only.
    counted: bool[n], the examples that are compared; None is all of them.

  Returns:
    float32 scalar, a mean over classes, computed at O(n * classes).

  Raises:
    ValueError: the batch is smaller than one group, the shapes differ, or a
      mean_weight with another mix than "difference".

  References:
    arXiv 2311.02253, averaged over its sampler's groups.
  """
  student, teacher = to_matching_float32(student, teacher)
  batch_size, classes = student.shape
  at_least(1, positives=positives, negatives=negatives)
  if batch_size < positives + negatives:
    raise ValueError(
      f"a batch of {batch_size} holds no group of {positives} + {negatives}"
    )
  gap = student - teacher
  if counted is None:
    mean = jnp.mean(gap, axis=0)
    centred = gap - mean[None]
    spread = jnp.sum(jnp.square(centred)) / (batch_size - 1)
  else:
    batch_size = jnp.maximum(jnp.sum(counted), 2)
    mean = jnp.sum(gap, axis=0, where=counted[:, None]) / batch_size
    square = jnp.sum(jnp.square(gap - mean[None]), axis=1)
    spread = jnp.sum(square, where=counted) / (batch_size - 1)
  mean_square = jnp.sum(jnp.square(mean))
  if isinstance(mix, str) and mix == "difference":
    total = (1 / positives + 1 / negatives) * (
      spread + mean_weight * mean_square
    )
    return total / classes
  if mean_weight:
    raise ValueError("mean_weight belongs to mix='difference'")
  a, b = _mix_weights(mix)
  share = a**2 / positives + b**2 / negatives - (a + b) ** 2 / batch_size
  return ((a + b) ** 2 * mean_square + share * spread) / classes


def _mix_weights(mix: str | float) -> tuple[float, float]:
  if not isinstance(mix, str):
    return mix, 1.0 - mix
  if mix == "difference":
    return 1.0, -1.0
  if mix == "mean":
    return 0.5, 0.5
  raise ValueError(f'mix must be "difference", "mean" or a number, not {mix!r}')


def make(
  *,
  positives: int = 1,
  negatives: int = 1,
  mix: str = "difference",
  beta: float = 1.0,
  divergence: str = "mse",
  temperature: float = 4.0,
  teacher_weight: float = 1.0,
  label_weight: float = 1.0,
  cross_entropy_weight: float = 0.0,
  kd_weight: float = 0.0,
  estimator: str = "groups",
  max_groups: int = 100_000,
  groups_per_batch: int = 1024,
  mean_weight: float = 0.0,
  offset: str = offsets.NONE,
) -> Method:
  """CKD (arXiv 2311.02253, its current code) with three estimators.

  groups: as published. `max_groups` distinct groups are drawn once; a batch is
    that many groups, every image freshly augmented, and the two sides go
    through the student separately, so batch norm sees each side on its own.
  batch_groups: a batch of distinct images goes through the student once;
    `groups_per_batch` groups are drawn inside it.
  all: the same batch, and the mean over all of its groups in closed form.

  Args:
    positives: images on the first side of a group.
    negatives: images on the second side.
    mix: "difference", "mean" (ckd_add) or "lam" (ckd_mixup: one lam per batch
      from Beta(beta, beta)).
    beta: both parameters of that distribution, above 0.
    divergence: "mse", or "kl" (the first version of the paper).
    temperature: softening temperature of kl and of the KD term.
    teacher_weight: weight of the comparison with the teacher's logits.
    label_weight: weight of the comparison with one-hot labels.
    cross_entropy_weight: weight of an added cross-entropy, per image.
    kd_weight: weight of an added KD term, per image.
    estimator: "groups", "batch_groups" or "all".
    max_groups: length of the list of "groups".
    groups_per_batch: groups that "batch_groups" draws per step.
    mean_weight: weight of the batch mean, which no difference sees; "all" only.
    offset: "fit" evaluates the student with the class offset that the loss
      leaves free, fitted on the training images; "none" without it.

  Raises:
    ValueError: a value outside its range, or a combination without meaning.
  """
  hyper = dict(locals())
  _check(hyper)
  compare = _estimator(
    estimator,
    functools.partial(ckd, divergence=divergence, temperature=temperature),
    sides=(positives, negatives),
    groups_per_batch=groups_per_batch,
    mean_weight=mean_weight,
  )
  compare = groups.with_mix(compare, mix, beta)

  def loss(params, state, student, batch, key, step):
    del params, step
    (teacher,) = batch.teachers
    one_hot = jax.nn.one_hot(batch.labels, student.logits.shape[-1])
    # The same key for both terms: one lam and one draw of groups per batch.
    both = functools.partial(compare, key, batch.labels, student.logits)
    mean = functools.partial(mean_counted, labels=batch.labels)
    terms: dict = {"teacher": (teacher_weight, both(teacher.logits))}
    terms["label"] = (label_weight, both(one_hot))
    if cross_entropy_weight:
      value = mean(cross_entropy(student.logits, batch.labels))
      terms["cross_entropy"] = (cross_entropy_weight, value)
    if kd_weight:
      value = kd(student.logits, teacher.logits, temperature=temperature)
      terms["kd"] = (kd_weight, mean(value))
    value, metrics = weighted_sum(terms)
    return value, (state, metrics)

  is_fixed = estimator == "groups"
  sample, init = sampling.batches, stateless
  if is_fixed:
    sample, init = groups.fixed_groups(positives, negatives, max_groups)
  return Method(
    sample=sample,
    init=init,
    loss=loss,
    offset_target=_offset_target(hyper),
    passes=(positives, negatives) if is_fixed else (),
    answers="any" if estimator == "all" else "rows",
  )


def _estimator(
  name: str,
  one_group: Callable[..., jax.Array],
  *,
  sides: tuple[int, int],
  groups_per_batch: int,
  mean_weight: float,
) -> groups.Compare:
  """Makes the comparison of one step's images.

  Args:
    name: "groups", "batch_groups" or "all".
    one_group: `ckd` with all of its hyper-parameters but mix.
    sides: (positives, negatives), how many images a side has.
    groups_per_batch: how many groups "batch_groups" draws.
    mean_weight: weight of the batch mean in "all".
  """
  positives, negatives = sides
  if name == "groups":
    return groups.compare_rows(one_group, positives)
  if name == "batch_groups":
    return groups.compare_drawn(one_group, sides, groups_per_batch)

  def compare_all(key, student, target, mix, counted):
    return ckd_all(
      student[:, 0],
      target[:, 0],
      positives=positives,
      negatives=negatives,
      mix=mix,
      mean_weight=mean_weight,
      counted=counted,
    )

  return compare_all


def _leaves_offset_free(hyper: dict) -> bool:
  """Whether every term is a difference, which no common offset changes."""
  adds = ("mean_weight", "cross_entropy_weight", "kd_weight")
  return (
    hyper["divergence"] == "mse"
    and hyper["mix"] == "difference"
    and not any(hyper[name] for name in adds)
    and hyper["teacher_weight"] + hyper["label_weight"] > 0
  )


def _offset_target(hyper: dict) -> OffsetTarget:
  """The weighted mean of teacher and one-hot labels, which the loss aims at."""
  if not _leaves_offset_free(hyper):
    return no_offset
  weights = {name: hyper[name] for name in ("teacher_weight", "label_weight")}

  def target(batch):
    (teacher,) = batch.teachers
    return offsets.target(teacher.logits, batch.labels, **weights)

  return target


def _check(hyper: dict) -> None:
  choices = {
    "mix": ("difference", "mean", "lam"),
    "divergence": ("mse", "kl"),
    "estimator": ("groups", "batch_groups", "all"),
    "offset": offsets.MODES,
  }
  for name, values in choices.items():
    if hyper[name] not in values:
      raise ValueError(f"{name} must be one of {values}, not {hyper[name]!r}")
  counts = ("positives", "negatives", "max_groups", "groups_per_batch")
  at_least(1, **{name: hyper[name] for name in counts})
  above(0, beta=hyper["beta"], temperature=hyper["temperature"])
  weights = ("teacher", "label", "cross_entropy", "kd", "mean")
  names = [f"{term}_weight" for term in weights]
  at_least(0, **{name: hyper[name] for name in names})
  if hyper["estimator"] == "all" and hyper["divergence"] != "mse":
    raise ValueError("estimator='all' has a closed form for mse only")
  is_family = hyper["estimator"] == "all" and hyper["mix"] == "difference"
  if hyper["mean_weight"] and not is_family:
    raise ValueError("mean_weight needs estimator='all' and mix='difference'")
  if hyper["offset"] == offsets.FIT and not _leaves_offset_free(hyper):
    raise ValueError(
      "offset='fit' needs a loss of differences alone: divergence='mse', "
      "mix='difference', mean_weight=0.0, no cross-entropy and no kd term"
    )
