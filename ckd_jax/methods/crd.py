"""Contrastive Representation Distillation: an image against many others."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._checks import above, at_least, share
from ckd_jax.methods._heads import apply_linear, linear
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import check_shapes, constant, float32, normalise


class CRDMemory(NamedTuple):
  """The last embeddings of every image, from both networks.

  Attributes:
    student: float32[num_examples, dim], rows of the student's head.
    teacher: float32[num_examples, dim], rows of the teacher's head.
    student_normalizer: float32 scalar Z of the student; negative until the
      first batch.
    teacher_normalizer: float32 scalar Z of the teacher; negative until the
      first batch.
  """

  student: jax.Array
  teacher: jax.Array
  student_normalizer: jax.Array
  teacher_normalizer: jax.Array


def crd_memory(key: jax.Array, num_examples: int, dim: int) -> CRDMemory:
  """Draws the first memory: uniform within sqrt(3 / dim), no normalisers.

  Args:
    key: random key.
    num_examples: rows, one for every image.
    dim: width of both heads.
  """
  student_key, teacher_key = jax.random.split(key)
  shape, bound = (num_examples, dim), (3 / dim) ** 0.5

  def bank(key):
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

  unset = jnp.full((), -1.0, jnp.float32)
  return CRDMemory(bank(student_key), bank(teacher_key), unset, unset)


def crd(
  student: jax.Array,
  teacher: jax.Array,
  memory: CRDMemory,
  index: jax.Array,
  contrast_index: jax.Array,
  *,
  num_examples: int | jax.Array,
  temperature: float = 0.07,
  momentum: float = 0.5,
) -> tuple[jax.Array, CRDMemory]:
  """Contrasts both networks with each other's memory, and moves the memory.

  Each network is compared with the memory of the other. With P = exp(dot / T) /
  Z, Z the first batch's mean of exp(dot / T) times num_examples, and c =
  negatives / num_examples: the mean over examples of -log(P+ / (P+ + c)) - sum
  over negatives of log(c / (P- + c)). Then the rows of this batch move:
  normalise(momentum * old + (1 - momentum) * new).

  A row that is not finite enters neither the memory nor Z, where it would stay
  for ever.

  Args:
    student: [n, dim], the student's embedding after its head.
    teacher: [n, dim], the teacher's embedding after its head. The head is
      trained, so this argument carries a gradient.
    memory: from `crd_memory` or from the batch before. No gradient.
    index: int[n], distinct rows of the memory, those of the examples.
    contrast_index: int[n, 1 + negatives], rows of the memory, the positive
      first.
    num_examples: training images; the memory may have more rows.
    temperature: T, above 0.
    momentum: share of the old row that stays, 0 to 1.

  Returns:
    float32 scalar, in nats, and the new memory.

  References:
    arXiv 1910.10699, equations 10 and 19; constants as in its public code.
  """
  count = jax.vmap(lambda rows: jnp.zeros(len(memory.student)).at[rows].add(1))
  return _contrast_counted(
    (student, teacher),
    memory,
    (index, contrast_index[:, 0]),
    count(contrast_index[:, 1:]),
    negatives=contrast_index.shape[1] - 1,
    num_examples=num_examples,
    temperature=temperature,
    momentum=momentum,
  )


def _contrast_counted(
  pair,
  memory,
  rows,
  counts,
  *,
  negatives,
  num_examples,
  temperature,
  momentum,
):
  """Computes `crd` with negatives that are counted, not listed.

  A sum over thousands of negatives is a sum over the rows of the memory, each
  times its count: one product in place of a gather of millions of numbers.

  Args:
    pair: (student, teacher), as in `crd`.
    memory: as in `crd`.
    rows: (index, positive), int[n] each: the rows that move, and the positives.
    counts: float32[n, rows], how often a row is a negative of an example.
    negatives: their number in c; that of `counts` in the mean.
    num_examples: as in `crd`.
    temperature: as in `crd`.
    momentum: as in `crd`.

  Returns:
    As `crd`.
  """
  check_shapes(*pair)
  student, teacher = map(normalise, pair)
  memory, (index, positive) = jax.lax.stop_gradient(memory), rows
  value, normalizers = 0.0, []
  for x, bank, normalizer in (
    (student, memory.teacher, memory.student_normalizer),
    (teacher, memory.student, memory.teacher_normalizer),
  ):
    (bank,) = float32(bank)
    scores = (
      jnp.sum(x * bank[positive], axis=1) / temperature,
      jnp.matmul(x, bank.T, precision="highest") / temperature,
    )
    normalizer = _normalizer(normalizer, scores, counts, num_examples)
    # In logarithms: exp(dot / T) overflows at a temperature below 0.012.
    log_noise = jnp.log(negatives / jnp.float32(num_examples))
    value += _contrast(scores, counts, jnp.log(normalizer) + log_noise)
    normalizers.append(normalizer)
  # Constants before they are written: a scatter's derivative is three scatters.
  student, teacher = jax.lax.stop_gradient((student, teacher))
  return value, CRDMemory(
    _move(memory.student, index, student, momentum),
    _move(memory.teacher, index, teacher, momentum),
    *normalizers,
  )


def _normalizer(stored, scores, counts, num_examples):
  """The stored one, or that of a first batch with anything finite in it."""
  positive, negative = jax.lax.stop_gradient(scores)
  known = jnp.isfinite(positive)
  # Not exp(negative) times 0: it may be infinite.
  drawn = known[:, None] & (counts > 0)
  mass = jnp.exp(jnp.where(known, positive, -jnp.inf)) + jnp.sum(
    counts * jnp.exp(jnp.where(drawn, negative, -jnp.inf)), axis=1
  )
  number = jnp.where(known, 1.0 + jnp.sum(counts, axis=1), 0.0)
  first = jnp.sum(mass) / jnp.maximum(jnp.sum(number), 1.0) * num_examples
  # 0 or infinite if stored, it would make every later loss infinite.
  limits = jnp.finfo(jnp.float32)
  first = jnp.clip(first, limits.tiny, limits.max)
  return jnp.where((stored < 0) & jnp.any(known), first, stored)


def _contrast(scores, counts, shift):
  positive, negative = (x - shift for x in scores)
  negative = jnp.sum(counts * jax.nn.softplus(negative), axis=1)
  return jnp.mean(jax.nn.softplus(-positive) + negative)


def _move(bank, index, rows, momentum):
  old = bank[index]
  new = normalise(momentum * old + (1 - momentum) * rows).astype(bank.dtype)
  is_finite = jnp.all(jnp.isfinite(new), axis=1, keepdims=True)
  return bank.at[index].set(jnp.where(is_finite, new, old))


def make(
  *,
  weight: float = 0.8,
  negatives: int = 16384,
  temperature: float = 0.07,
  momentum: float = 0.5,
  dim: int = 128,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """CRD (arXiv 1910.10699); kd_weight=1.0 is its CRD+KD.

  Both heads are trained. The negatives of an image are drawn anew at every step
  from the images of all other classes: each of them negatives / others times,
  rounded up or down by chance. So their number is `negatives` in the mean; the
  public code draws exactly as many, without replacement where a class leaves
  enough of them and else with it.

  Args:
    weight: weight of the contrastive loss.
    negatives: images that each image is contrasted with, in the mean.
    temperature: divides the similarities, above 0.
    momentum: share of an old memory row that stays, 0 to 1.
    dim: width of both heads.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  at_least(1, negatives=negatives, dim=dim)
  above(0, temperature=temperature)
  share(momentum=momentum)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    student_key, teacher_key, memory_key = jax.random.split(key, 3)
    params = {
      "student": linear(student_key, student.embedding.shape[-1], dim),
      "teacher": linear(teacher_key, teacher.embedding.shape[-1], dim),
    }
    state = {
      "memory": crd_memory(memory_key, task.labels.shape[0], dim),
      "classes": _classes(task),
    }
    return params, state

  def terms(inputs: Inputs):
    student, teacher = inputs.embeddings
    # Labels of a batch may be columns of some documents: these are the rows'.
    index, classes = inputs.batch.index[:, 0], inputs.state["classes"]
    value, memory = _contrast_counted(
      (
        apply_linear(inputs.params["student"], student),
        apply_linear(inputs.params["teacher"], *constant(teacher)),
      ),
      inputs.state["memory"],
      (index, index),
      _draw_counts(inputs.key, index, classes, negatives),
      negatives=negatives,
      num_examples=classes["num_examples"],
      temperature=temperature,
      momentum=momentum,
    )
    return {"crd": (weight, value)}, {**inputs.state, "memory": memory}

  return make_method(terms, extra, needs=("embedding",), init=init)


def _classes(task):
  """The class of every row, -1 of padding, and how many rows are of it."""
  is_known = jnp.arange(task.labels.shape[0]) < task.num_examples
  labels = jnp.where(is_known, task.labels, -1)
  ordered = jnp.sort(labels)
  first, end = (
    jnp.searchsorted(ordered, labels, side=side) for side in ("left", "right")
  )
  return {
    "labels": labels,
    "count": end - first,
    "num_examples": jnp.asarray(task.num_examples, jnp.int32),
  }


def _draw_counts(key, index, classes, negatives: int) -> jax.Array:
  """Draws the negatives of every image, as counts of the rows.

  A row of another class counts negatives / others, rounded up or down by
  chance, so that its mean is exact: with fewer negatives than others it is
  drawn once or not at all.

  Args:
    key: random key.
    index: int32[n], rows of the images.
    classes: from `_classes`.
    negatives: how many an image gets in the mean.

  Returns:
    float32[n, rows], whole numbers.
  """
  rows, size = classes["labels"][None], classes["num_examples"]
  count = classes["count"][index]
  own = jnp.where(count < size, rows[0, index], -1)[:, None]
  others = jnp.where(count < size, size - count, size)[:, None]
  times = negatives // others
  share = (negatives % others) / others
  times = times + (_uniform(key, len(index), rows.shape[1]) < share)
  is_drawn = (rows != own) & (rows >= 0)
  return jnp.where(is_drawn, times, 0).astype(jnp.float32)


def _uniform(key, n: int, rows: int) -> jax.Array:
  """Draws float32[n, rows] in [0, 1), independent inside a row of the result.

  One random word a column, multiplied and shifted by an odd and any random word
  a row (a universal hash): two rows are as good as independent, at a fiftieth
  of the work of drawing all numbers.
  """
  column_key, row_key = jax.random.split(key)
  words = jax.random.bits(column_key, (1, rows), jnp.uint32)
  factor, shift = jax.random.bits(row_key, (2, n, 1), jnp.uint32)
  mixed = words * (factor | 1) + shift
  return (mixed >> 8).astype(jnp.float32) * jnp.float32(2**-24)
