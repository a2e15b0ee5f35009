"""Information flow: the neighbourhoods of every layer, strongest at first."""

import jax
import jax.numpy as jnp

from ckd_jax import sampling
from ckd_jax.methods import Method
from ckd_jax.methods._terms import combined
from ckd_jax.numerics import constant, distances, float32, normalise


def infoflow(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """Jeffreys divergence between the neighbourhoods of one layer, two kernels.

  The kernels are (cosine + 1) / 2 and 1 / (1 + distance), the distance being
  sqrt(|difference|^2 + 1e-6). Each is divided by its row sums, the diagonal
  included, and mean_ij (P_t - P_s)(log P_t - log P_s) is added for the two.

  Args:
    student: [n, ...]; flattened.
    teacher: [n, ...], of any other width. No gradient.

  Returns:
    float32 scalar, in nats; 0 for one example.

  References:
    arXiv 2005.00727; the divergence and the kernels of its public code.
  """
  (teacher,) = constant(teacher)
  (student,) = float32(student)
  return sum(
    _jeffreys(kernel(_flat(student)), kernel(_flat(teacher)))
    for kernel in (_cosine_kernel, _student_t_kernel)
  )


def _flat(x):
  return x.reshape(len(x), -1)


def _cosine_kernel(x):
  rows = normalise(x)
  cosine = jnp.matmul(rows, rows.T, precision="highest")
  # Opposite rows have a similarity of 0, whose logarithm is not finite.
  return jnp.maximum((cosine + 1) / 2, 1e-6)


def _student_t_kernel(x):
  return 1 / (1 + jnp.sqrt(jnp.square(distances(x)) + 1e-6))


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
  is simply the teacher of this run; layers are matched one to one.

  As published there are no labels in it: nothing trains the classifier, and the
  embedding is judged by retrieval. For an accuracy set cross_entropy_weight.

  Args:
    weight: of the whole.
    map_weight: of every map in the first epoch.
    decay: factor of map_weight from one epoch to the next.
    cross_entropy_weight: of the cross-entropy with the labels.
    kd_weight: of the KD term.
    ckd_weight: of the comparative term.
  """
  total = combined(
    cross_entropy_weight=cross_entropy_weight,
    kd_weight=kd_weight,
    ckd_weight=ckd_weight,
  )

  def init(key, task, student, teacher):
    if len(student.maps) != len(teacher.maps):
      raise ValueError(
        f"infoflow matches layers one to one: the student has "
        f"{len(student.maps)} maps and the teacher {len(teacher.maps)}; choose "
        "an auxiliary teacher with the student's structure"
      )
    epoch = jnp.maximum(jnp.asarray(task.steps_per_epoch, jnp.int32), 1)
    return {}, {"steps_per_epoch": epoch}

  def loss(params, state, student, batch, key, step):
    teacher = batch.teachers[0]
    epoch = step // state["steps_per_epoch"]
    maps = sum(
      infoflow(mine[:, 0], theirs[:, 0])
      for mine, theirs in zip(student.maps, teacher.maps, strict=True)
    )
    share = map_weight * jnp.float32(decay) ** epoch
    terms = {
      "embedding": (
        weight,
        infoflow(student.embedding[:, 0], teacher.embedding[:, 0]),
      ),
      "maps": (weight * share, maps),
    }
    value, metrics = total(student, batch, **terms)
    return value, (state, metrics)

  return Method(
    sample=sampling.batches,
    init=init,
    loss=loss,
    needs=frozenset({"logits", "embedding", "maps"}),
  )
