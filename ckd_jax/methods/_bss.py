"""BSS: samples that an attack moves to the teacher's decision boundary."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.numerics import constant, float32, normalise, to_matching_float32


def bss(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  *,
  temperature: float = 3.0,
) -> jax.Array:
  """Computes the cross-entropy of softened answers, without the factor T^2.

  Unlike `kd` it holds the teacher's entropy, and is not 0 for equal answers.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes]; -inf rules a class out. No gradient.
    temperature: T, above 0.

  Returns:
    float32[n], in nats.

  References:
    Heo et al., arXiv 1805.05532, and its public code.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  student = jax.nn.log_softmax(student / temperature)
  return -jnp.sum(jax.nn.softmax(teacher / temperature) * student, axis=-1)


def bss_base(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  labels: jax.Array,
  *,
  size: int = 64,
) -> jax.Array:
  """Chooses the rows to attack: both networks are right about them.

  Of more than `size` it is those with the largest sum over the classes other
  than the label of (p_t - p_s)^2, at temperature 1; of equals, the first.

  Args:
    student_logits: [n, classes].
    teacher_logits: [n, classes].
    labels: int[n], classes.
    size: the most rows that are chosen.

  Returns:
    bool[n].

  References:
    Heo et al., arXiv 1805.05532, and its public code.
  """
  student, teacher = to_matching_float32(student_logits, teacher_logits)
  if jnp.shape(labels) != student.shape[:-1]:
    raise ValueError(
      f"labels {jnp.shape(labels)} must be one for each student answer, "
      f"{student.shape[:-1]}"
    )
  gap = jnp.square(jax.nn.softmax(teacher) - jax.nn.softmax(student))
  is_label = jax.nn.one_hot(labels, gap.shape[-1], dtype=bool)
  gap = jnp.sum(jnp.where(is_label, 0.0, gap), axis=-1)
  is_right = (_top(student) == labels) & (_top(teacher) == labels)
  order = jnp.argsort(jnp.where(is_right, -gap, jnp.inf))
  return is_right & (jnp.argsort(order) < size)


def bss_targets(key: jax.Array, teacher_logits: jax.Array) -> jax.Array:
  """Draws the class to move to, with probability proportional to p_t.

  Args:
    key: random key.
    teacher_logits: [n, classes].

  Returns:
    int32[n]; never the teacher's top class, unless there is no other.

  References:
    Heo et al., arXiv 1805.05532, and its public code.
  """
  (logits,) = float32(teacher_logits)
  # Finite: of classes that the teacher rules out, any is better than the top.
  logits = jnp.maximum(logits, jnp.finfo(jnp.float32).min)
  is_top = jax.nn.one_hot(_top(logits), logits.shape[-1], dtype=bool)
  drawn = jax.random.categorical(key, jnp.where(is_top, -jnp.inf, logits))
  return drawn.astype(jnp.int32)


def bss_attack(
  teacher: Callable[[jax.Array], jax.Array],
  inputs: jax.Array,
  targets: jax.Array,
  *,
  steps: int = 10,
  step_size: float = 0.3,
  low: float = -2.5,
  high: float = 2.5,
) -> jax.Array:
  """Moves inputs to where the teacher's top class ends and the target begins.

  With o the top class at the start, k the target and g the gradient of
  z_k - z_o: x moves by step_size (z_o - z_k + 1e-4) g / |g| until any class but
  o is on top. After every step all values are clipped, those of rows that stay,
  too. A row whose g is 0 stays.

  Args:
    teacher: maps inputs to logits [n, classes], every row by itself: batch norm
      with running statistics.
    inputs: [n, ...], normalised.
    targets: int[n], classes, from `bss_targets`.
    steps: the most moves of a row.
    step_size: length of a move, in units of the gap between both logits.
    low: least value of the result.
    high: largest value of the result.

  Returns:
    As inputs; no gradient passes. In `steps` moves a row need not cross.

  References:
    Heo et al., arXiv 1805.05532, with the steps of its public code.
  """
  inputs = jnp.asarray(inputs)
  if not jnp.issubdtype(inputs.dtype, jnp.floating):
    raise ValueError(
      f"inputs of type {inputs.dtype} cannot be moved: normalise them first"
    )

  def ask(x):
    (logits,) = float32(teacher(x.astype(inputs.dtype)))
    return logits

  def behind(x):
    """How far the target is behind, and the top class."""
    logits = ask(x)
    both = jnp.stack([first, targets], axis=1)
    of_first, of_target = jnp.take_along_axis(logits, both, axis=1).T
    return of_first - of_target, _top(logits)

  def move(_, x):
    gap, pull, top = jax.vjp(behind, x, has_aux=True)
    (slope,) = pull(-jnp.ones_like(gap))
    direction = normalise(slope.reshape(len(x), math.prod(x.shape[1:])))
    far = step_size * (gap + 1e-4) * (top == first)
    moved = x + (far[:, None] * direction).reshape(x.shape)
    return jnp.clip(moved, low, high)

  (x,) = constant(inputs)
  logits = ask(x)
  _check_targets(targets, logits.shape[-1])
  first = _top(logits)

  def attack(x, *, unroll: bool = False):
    return jax.lax.fori_loop(0, steps, move, x, unroll=unroll)

  # In a loop a convolution on a CPU takes ten times as long.
  x = jax.lax.platform_dependent(
    x, cpu=functools.partial(attack, unroll=True), default=attack
  )
  return jax.lax.stop_gradient(x.astype(inputs.dtype))


def bss_weights(
  progress: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Computes the weights of `bss` on the inputs and on the attacked ones.

  Args:
    progress: epoch / epochs, the first epoch being number 1.

  Returns:
    float32 scalars 3 (1 - progress) + 1 and 2 max(1 - 4 progress / 3, 0); the
    second is 0 from three quarters of the training on.

  References:
    The public code of Heo et al., arXiv 1805.05532.
  """
  progress = jnp.float32(progress)
  attacked = 2 * jnp.maximum(1 - 4 * progress / 3, 0.0)
  return 3 * (1 - progress) + 1, attacked


def _check_targets(targets, classes: int) -> None:
  """Refuses what is no class, where a value is known before the program."""
  if isinstance(targets, jax.core.Tracer):
    return
  targets = np.asarray(targets)
  wrong = targets[(targets < 0) | (targets >= classes)]
  if wrong.size:
    raise ValueError(
      f"a target is {wrong[0]}, but the classes are 0 to {classes - 1}"
    )


def _top(logits):
  return jnp.argmax(logits, axis=-1)
