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
  check_shapes(student, teacher)
  student, teacher = normalise(student), normalise(teacher)
  memory = jax.lax.stop_gradient(memory)
  value, normalizers = 0.0, []
  for x, bank, normalizer in (
    (student, memory.teacher, memory.student_normalizer),
    (teacher, memory.student, memory.teacher_normalizer),
  ):
    # All products, then a choice of them: a gather of [n, negatives, dim] would
    # be a hundred times the memory traffic.
    products = jnp.matmul(x, *(y.T for y in float32(bank)), precision="highest")
    scores = jnp.take_along_axis(products, contrast_index, axis=1) / temperature
    normalizer = _normalizer(normalizer, scores, num_examples)
    value += _contrast(scores, normalizer, num_examples)
    normalizers.append(normalizer)
  memory = CRDMemory(
    _move(memory.student, index, student, momentum),
    _move(memory.teacher, index, teacher, momentum),
    *normalizers,
  )
  return value, jax.lax.stop_gradient(memory)


def _normalizer(stored, scores, num_examples):
  """The stored one, or that of a first batch with anything finite in it."""
  known = jnp.isfinite(scores)
  mass = jnp.sum(jnp.where(known, jnp.exp(jnp.where(known, scores, 0.0)), 0.0))
  first = mass / jnp.maximum(jnp.sum(known), 1) * num_examples
  # 0 or infinite if stored, it would make every later loss infinite.
  limits = jnp.finfo(jnp.float32)
  first = jnp.clip(first, limits.tiny, limits.max)
  first = jax.lax.stop_gradient(first)
  return jnp.where((stored < 0) & jnp.any(known), first, stored)


def _contrast(scores, normalizer, num_examples):
  # In logarithms: exp(dot / T) overflows at a temperature below 0.012.
  log_noise = jnp.log((scores.shape[1] - 1) / jnp.float32(num_examples))
  margin = scores - jnp.log(normalizer) - log_noise
  positive = jax.nn.softplus(-margin[:, 0])
  negative = jnp.sum(jax.nn.softplus(margin[:, 1:]), axis=1)
  return jnp.mean(positive + negative)


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

  Both heads are trained. The negatives of an image are drawn anew at every
  step, with replacement, from the images of all other classes (without
  replacement in the public code where a class leaves enough of them).

  Args:
    weight: weight of the contrastive loss.
    negatives: images that each image is contrasted with.
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
      "classes": _sort_by_class(task),
    }
    return params, state

  def terms(inputs: Inputs):
    student, teacher = inputs.embeddings
    index, classes = inputs.batch.index[:, 0], inputs.state["classes"]
    others = _other_classes(
      inputs.key, inputs.batch.labels[:, 0], classes, negatives
    )
    value, memory = crd(
      apply_linear(inputs.params["student"], student),
      apply_linear(inputs.params["teacher"], *constant(teacher)),
      inputs.state["memory"],
      index,
      jnp.concatenate([index[:, None], others], axis=1),
      num_examples=classes["num_examples"],
      temperature=temperature,
      momentum=momentum,
    )
    return {"crd": (weight, value)}, {**inputs.state, "memory": memory}

  return make_method(terms, extra, needs=("embedding",), init=init)


def _sort_by_class(task):
  """The rows in order of class, and where each class begins; padding last."""
  is_known = jnp.arange(task.labels.shape[0]) < task.num_examples
  labels = jnp.where(is_known, task.labels, task.num_classes)
  count = jnp.zeros(task.num_classes + 1, jnp.int32).at[labels].add(1)
  return {
    "rows": jnp.argsort(labels).astype(jnp.int32),
    "start": jnp.cumsum(count) - count,
    "count": count,
    "num_examples": jnp.asarray(task.num_examples, jnp.int32),
  }


def _other_classes(key, labels, classes, negatives: int):
  """int32[n, negatives]: rows whose label is another, each equally likely."""
  start = classes["start"][labels][:, None]
  count = classes["count"][labels][:, None]
  # With one class in the run there is none to draw: then any row.
  others = jnp.maximum(classes["num_examples"] - count, 1)
  place = jax.random.randint(key, (len(labels), negatives), 0, others)
  place = place + jnp.where(place >= start, count, 0)
  return classes["rows"][jnp.minimum(place, classes["num_examples"] - 1)]
