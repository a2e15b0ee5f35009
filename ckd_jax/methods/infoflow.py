"""Information flow: matches the neighbourhoods of every layer."""

import jax
import jax.numpy as jnp
from jax import lax

from ckd_jax.methods import Method
from ckd_jax.methods._checks import at_least, share
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import (
  check_rows,
  constant,
  distances,
  float32,
  gram,
  normalise,
  safe_sqrt,
)

_ROUNDING = 1e-5  # error of a squared distance, relative to the squared lengths
_DIFFERENCES = 2**21  # float32 in the differences of all pairs: 8 MB


def infoflow(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Computes the Jeffreys divergence between neighbourhoods of one layer.

  Two kernels are used, (cosine + 1) / 2 and 1 / (1 + distance) with distance
  sqrt(|difference|^2 + 1e-6). Each is divided by its row sums, the diagonal
  included, and mean_ij (P_t - P_s)(log P_t - log P_s) is added for the two.

  Args:
    student: [n, ...], flattened here.
    teacher: [n, ...], of any other width. No gradient.

  Returns:
    float32 scalar, in nats; 0 for one example.

  References:
    arXiv 2005.00727; the divergence and the kernels of its public code.
  """
  (teacher,), (student,) = constant(teacher), float32(student)
  check_rows(student, teacher)
  kernels = zip(_kernels(student), _kernels(teacher), strict=True)
  return sum((_jeffreys(*pair) for pair in kernels), start=jnp.float32(0.0))


def _kernels(x):
  """Computes both similarities of all rows of one layer, each [n, n]."""
  x = x.reshape(len(x), -1)
  if len(x) * x.size <= _DIFFERENCES:
    cosine, square = gram(normalise(x)), jnp.square(distances(x))
  else:
    cosine, square = _from_products(x)
  # Opposite rows have a similarity of 0, whose logarithm is not finite.
  cosine = jnp.maximum((cosine + 1) / 2, 1e-6)
  return cosine, 1 / (1 + jnp.sqrt(square + 1e-6))


def _from_products(x):
  """Computes cosines and squared distances of a wide layer from one product.

  The mean is subtracted first. The product loses the distances of neighbours
  that are far from the mean.
  """
  # On a TPU maps lie with the examples last. By columns nothing is transposed.
  return lax.platform_dependent(x, tpu=_by_columns, default=_by_rows)


def _by_rows(x):
  mean = jnp.mean(x, axis=0, keepdims=True)
  return _around(mean, x, axis=1)


def _by_columns(x):
  # The mean as a product: it is there for every example at once.
  average = jnp.full((len(x), len(x)), 1 / len(x), jnp.float32)
  mean = jnp.matmul(x.T, average, precision="highest")
  return _around(mean, x.T, axis=0)


def _around(mean, x, axis):
  """Both similarities, the features of `x` along `axis`, its mean given."""
  # Any constant in place of the mean gives the same: it wants no gradient.
  mean = lax.stop_gradient(mean)
  rest = x - mean
  products = gram(rest if axis else rest.T)
  length = jnp.diagonal(products)
  sums = length[:, None] + length[None]
  square = sums - 2 * products
  # Where two rows coincide, as every row with itself, the root is so steep that
  # the rounding of this difference would dominate every other gradient.
  square = jnp.where(square > _ROUNDING * sums, square, 0.0)
  along = jnp.sum(rest * mean, axis=axis)
  offset = jnp.sum(jnp.square(mean), axis=axis)
  inner = products + along[:, None] + along[None] + offset[None]
  size = safe_sqrt(jnp.sum(jnp.square(x), axis=axis))
  scale = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1.0), 0.0)
  return inner * scale[:, None] * scale[None], square


def _jeffreys(student, teacher):
  log_student, log_teacher = (
    jnp.log(x) - jnp.log(jnp.sum(x, axis=1, keepdims=True))
    for x in (student, teacher)
  )
  gap = jnp.exp(log_teacher) - jnp.exp(log_student)
  return jnp.mean(gap * (log_teacher - log_student))


def make(
  *,
  weight: float = 1.0,
  map_weight: float = 100.0,
  decay: float = 0.7,
  cross_entropy_weight: float = 0.0,
  kd_weight: float = 0.0,
  ckd_weight: float = 0.0,
) -> Method:
  """Information flow (arXiv 2005.00727), against a teacher of equal structure.

  The embedding weighs 1 and every map `map_weight * decay^epoch`: intermediate
  layers guide the critical first epochs and then let go. The paper's auxiliary
  teacher, which has the student's layers and was distilled from the large one,
  is simply the teacher of this run; layers are matched one to one. Two runs
  make the chain: one distils the auxiliary teacher by any method, and this one
  takes that run with teacher.source=checkpoint and teacher.path=its folder.

  As published there are no labels in it: nothing trains the classifier, and the
  embedding is judged by retrieval. For an accuracy set cross_entropy_weight.

  Args:
    weight: weight of embedding and maps together.
    map_weight: weight of every map in the first epoch.
    decay: factor of map_weight from one epoch to the next, 0 to 1.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight, map_weight=map_weight)
  share(decay=decay)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def init(key, task, student, teacher):
    if len(student.maps) != len(teacher.maps):
      raise ValueError(
        f"infoflow matches layers one to one: the student has "
        f"{len(student.maps)} maps and the teacher {len(teacher.maps)}; choose "
        "an auxiliary teacher with the student's structure"
      )
    epoch = jnp.maximum(jnp.asarray(task.steps_per_epoch, jnp.int32), 1)
    return {}, {"steps_per_epoch": epoch}

  def terms(inputs: Inputs):
    epoch = inputs.step // inputs.state["steps_per_epoch"]
    maps = sum(
      infoflow(mine[:, 0], theirs[:, 0])
      for mine, theirs in zip(
        inputs.student.maps, inputs.teacher.maps, strict=True
      )
    )
    share = map_weight * jnp.float32(decay) ** epoch
    return {
      "embedding": (weight, infoflow(*inputs.embeddings)),
      "maps": (weight * share, maps),
    }

  return make_method(terms, extra, needs=("embedding", "maps"), init=init)
