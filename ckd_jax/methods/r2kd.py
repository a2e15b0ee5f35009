"""Robustness-Reinforced KD: correlated answers, on clean and altered images."""

import functools

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Batch, Method, Outputs, Sample, stateless
from ckd_jax.methods._checks import above, at_least, share
from ckd_jax.methods._mixing import blend, box, paste
from ckd_jax.methods._sum import weighted_sum
from ckd_jax.methods._terms import Extra
from ckd_jax.methods.dist import correlation
from ckd_jax.numerics import constant, float32, safe_sqrt, to_matching_float32

# How the second branch alters the image, and the published Beta(b, b) of lam.
AUGMENTS = {"cutmix": 1.0, "mixup": 0.2, "cutout": 0.0, "none": 0.0}
_COUNTED = 256  # classes up to which ranks are counted, not sorted


def r2kd_value(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  temperature: float = 4.0,
) -> jax.Array:
  """Computes T^2 times 1 - cosine of probabilities, over rows and columns.

  p = softmax(logits / T); the cosine is not centred, and of probabilities it is
  never negative, so the published absolute value is left out. It is 1 - mean
  over examples of cos(p_s[i, :], p_t[i, :]) plus 1 - mean over classes of
  cos(p_s[:, c], p_t[:, c]).

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes]; -inf rules a class out. No gradient.
    temperature: T, above 0.

  Returns:
    float32 scalar.

  References:
    arXiv 2311.13934, the value-based correlation distance.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  student = jax.nn.softmax(student / temperature)
  teacher = jax.nn.softmax(teacher / temperature)
  rows = 1 - jnp.mean(_cosine(student, teacher))
  columns = 1 - jnp.mean(_cosine(student.T, teacher.T))
  return temperature**2 * (rows + columns)


def r2kd_rank(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  soft: bool = False,
  softness: float = 1.0,
) -> jax.Array:
  """Computes 1 - Spearman's correlation of the classes' order.

  As published the ranks come from a sort: THE TERM HAS NO GRADIENT and only
  adds to the loss that is logged. `soft`, which is not in the paper, counts
  with sigmoids how many classes a class exceeds, at O(classes^2) an example.
  Where a student's logits are all equal the correlation is 0, without a
  gradient.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes]. No gradient.
    soft: makes the ranks of the student differentiable.
    softness: width of the sigmoids, in units of the logits.

  Returns:
    float32 scalar, the mean over examples.

  References:
    arXiv 2311.13934, the rank-based correlation distance.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  if soft:
    gap = student[:, :, None] - student[:, None, :]
    student = jnp.sum(jax.nn.sigmoid(gap / softness), axis=2)
  else:
    student = _ranks(student)
  return 1 - jnp.mean(correlation(student, _ranks(teacher)))


def _ranks(x):
  """float32[n, classes]: a class's place in its row, 0 the least.

  Of equals the first comes first. Comparing all with all is cheaper than two
  sorts on every device, until there are many classes.
  """
  x = jax.lax.stop_gradient(x)
  if x.shape[1] > _COUNTED:
    order = jnp.argsort(jnp.argsort(x, axis=1), axis=1)
    return order.astype(jnp.float32)
  mine, other, place = x[:, :, None], x[:, None, :], jnp.arange(x.shape[1])
  is_before = (place[None] < place[:, None])[None]
  is_less = jnp.where(is_before, other <= mine, other < mine)
  # Not with itself: a compiler that computes x anew for either side may round
  # one of them otherwise.
  is_less &= (place[None] != place[:, None])[None]
  return jnp.sum(is_less.astype(jnp.float32), axis=2)


def _cosine(x, y):
  """[n, dim] twice -> [n]; 0 where a row is (almost) zero, as published."""
  length = safe_sqrt(jnp.sum(x * x, axis=1)) * safe_sqrt(jnp.sum(y * y, axis=1))
  return jnp.sum(x * y, axis=1) / (length + 1e-8)


def make(
  *,
  value_weight: float = 2.0,
  rank_weight: float = 2.0,
  soft_rank: bool = False,
  softness: float = 1.0,
  temperature: float = 4.0,
  pruned_weight: float = 0.3,
  augment: str = "cutmix",
  hole: int = 8,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """R2KD (arXiv 2311.13934) on a clean and on an altered branch.

  The branches go through the student separately. Labels, KD and CKD belong to
  the clean branch. The target is (1 - pruned_weight) * teacher + pruned_weight
  * pruned teacher, where the batch holds a second teacher (config key
  teacher.pruned, 0.1 as published: a copy without the 10 % smallest weights of
  each layer), and else, as of a black box, the teacher alone. The copy answers
  in evaluation mode; the published code leaves it in training mode.

  A live teacher answers about the altered image, as published. Answers from a
  table cannot: there the target of the altered branch is the mixture of the
  probabilities of both images, by the share of each; this is our stand-in. The
  published autoaug and cutmixpick are not offered.

  The published rank term has no gradient; see `r2kd_rank` and `soft_rank`.

  Args:
    value_weight: weight of `r2kd_value`, summed over branches.
    rank_weight: weight of `r2kd_rank`, summed over branches.
    soft_rank: makes the ranks differentiable; not in the paper.
    softness: width of the sigmoids behind soft ranks, in units of the logits.
    temperature: softening temperature of the value term, above 0.
    pruned_weight: share of the second teacher's logits in the target, 0 to 1.
    augment: "cutmix", "mixup", "cutout", or "none" for the clean branch alone.
    hole: side of cutout's box, in pixels.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: an unknown way to augment, or a value outside its range.
  """
  if augment not in AUGMENTS:
    raise ValueError(
      f"augment must be one of {tuple(AUGMENTS)}, not {augment!r}"
    )
  at_least(0, value_weight=value_weight, rank_weight=rank_weight, hole=hole)
  above(0, softness=softness, temperature=temperature)
  share(pruned_weight=pruned_weight)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)
  at_least(0, **extra._asdict())

  def loss(params, state, student, batch, key, step):
    answers = _target(batch.teachers, pruned_weight)
    branches = [
      (student.logits[:, branch], answers[:, branch])
      for branch in range(student.logits.shape[1])
    ]
    value = sum(
      r2kd_value(mine, theirs, temperature=temperature)
      for mine, theirs in branches
    )
    rank = sum(
      r2kd_rank(mine, theirs, soft=soft_rank, softness=softness)
      for mine, theirs in branches
    )
    own = {"value": (value_weight, value), "rank": (rank_weight, rank)}
    clean = Outputs(student.logits[:, :1]), _clean_branch(batch)
    value, metrics = weighted_sum({**own, **extra.terms(*clean)})
    return value, (state, metrics)

  if augment == "none":
    one_branch = Method(sampling.batches, stateless, loss)
    return one_branch._replace(max_teachers=2)
  return Method(
    sample=_sampler(augment),
    init=stateless,
    loss=loss,
    prepare=functools.partial(_add_branch, augment=augment, hole=hole),
    passes=(1, 1),
    max_teachers=2,
    inputs="images",
  )


def _sampler(augment: str) -> Sample:
  """Samples every image with the one before it in the batch, to mix the two."""

  def sample(key, step, task, state):
    if augment != "cutout" and task.batch_size < 2:
      raise ValueError(f"r2kd's {augment} mixes two images: batch_size is 1")
    index = sampling.batches(key, step, task)
    return jnp.concatenate([index, jnp.roll(index, 1, axis=0)], axis=1)

  return sample


def _add_branch(
  key: jax.Array, batch: Batch, *, augment: str, hole: int
) -> Batch:
  """Puts the altered version of each first image in the second one's place."""
  altered, weights = _alter(key, batch.inputs, augment, hole)
  return batch._replace(
    # The second branch is a version of the first image.
    labels=jnp.concatenate([batch.labels[:, :1]] * 2, axis=1),
    inputs=jnp.concatenate([batch.inputs[:, :1], altered], axis=1),
    teachers=tuple(_mixture(teacher, weights) for teacher in batch.teachers),
  )


def _target(teachers: tuple[Outputs, ...], pruned_weight: float) -> jax.Array:
  """Mixes in the logits of the second teacher, where there is one."""
  logits, *pruned = constant(*(teacher.logits for teacher in teachers))
  if not pruned or not pruned_weight:
    return logits
  return (1 - pruned_weight) * logits + pruned_weight * pruned[0]


def _clean_branch(batch: Batch) -> Batch:
  """The labels and the first teacher's logits of the unaltered images."""
  return batch._replace(
    labels=batch.labels[:, :1],
    teachers=(Outputs(batch.teachers[0].logits[:, :1]),),
  )


def _alter(key, images, augment: str, hole: int):
  """[batch, 2, h, w, c] to [batch, 1, h, w, c], and both images' shares."""
  lam_key, box_key = jax.random.split(key)
  if augment == "cutout":
    inside = box(box_key, images.shape[2:4], (hole, hole))
    altered = jnp.where(inside[None, None, :, :, None], 0, images[:, :1])
    return altered, jnp.array([1.0, 0.0])
  lam = sampling.beta(lam_key, AUGMENTS[augment])
  if augment == "cutmix":
    altered, lam = paste(box_key, images, lam)
    return altered, jnp.stack([lam, 1 - lam])
  weights = jnp.stack([lam, 1 - lam])
  rows = jnp.broadcast_to(weights[None], images.shape[:2])
  return blend(images, rows), weights


def _mixture(teacher: Outputs, weights) -> Outputs:
  """The answer to the first image, and the mixture of the answers to both."""
  (logits,) = float32(teacher.logits)
  # A share of 0 is -inf here, and a class that both rule out stays ruled out.
  parts = jax.nn.log_softmax(logits) + jnp.log(weights)[None, :, None]
  mixed = jax.nn.logsumexp(parts, axis=1, keepdims=True)
  return Outputs(jnp.concatenate([logits[:, :1], mixed], axis=1))
