"""The class offset that a loss of differences leaves free.

Such a loss does not change when one vector is added to every logit of the
student, so its argmax is arbitrary until an offset is chosen. The best one
costs no teacher call: the mean, over the training images, of target minus
student. It is added when a student is evaluated (mode "fit") and folded into
the classifier's bias when it is exported; the training state never holds it.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.errors import UserError

NONE, FIT = "none", "fit"  # how a student may be evaluated
MODES = (NONE, FIT)
# The modes as a reader of results would call them.
LABELS = {NONE: "no offset", FIT: "offset fitted"}


class OffsetPlan(NamedTuple):
  """How one run treats the offset.

  Attributes:
    mode: "none" or "fit", in which accuracies are reported.
    bias: path of the leaf in the student's parameters to which a fitted offset
      is added; None for mode "none".
  """

  mode: str = NONE
  bias: tuple[str, ...] | None = None


def target(
  teacher_logits: jax.Array,
  labels: jax.Array,
  *,
  teacher_weight: float,
  label_weight: float,
) -> jax.Array:
  """What comparisons with teacher and labels aim at, up to an offset.

  (w_t t + w_l y) / (w_t + w_l), where y are one-hot labels.

  Args:
    teacher_logits: [..., classes], finite.
    labels: int[...].
    teacher_weight: w_t, of the comparison with the teacher.
    label_weight: w_l, of the comparison with one-hot labels.

  Returns:
    float32[..., classes].
  """
  teacher = jnp.asarray(teacher_logits, jnp.float32)
  one_hot = jax.nn.one_hot(labels, teacher.shape[-1])
  total = teacher_weight + label_weight
  return (teacher_weight * teacher + label_weight * one_hot) / total


def gap(mean_target, student_logits):
  """The offset that brings the student's mean logits to the target's.

  Args:
    mean_target: float32[classes], averaged over the training images.
    student_logits: float32[n, classes], the student's, of the same images in
      evaluation mode and without augmentation.

  Returns:
    float32[classes], an array of the library of its arguments.
  """
  return mean_target - student_logits.mean(0)


def fitted_offset(
  student_logits: jax.Array,
  teacher_logits: jax.Array,
  labels: jax.Array,
  *,
  teacher_weight: float = 1.0,
  label_weight: float = 1.0,
) -> jax.Array:
  """The offset that minimises what `ckd` and `ckd_all` cannot see.

  w_t |s + o - t|^2 + w_l |s + o - y|^2, averaged over the images, is least at
  o = mean(target - s) with target = (w_t t + w_l y) / (w_t + w_l). Add it to
  the student's logits, or to the bias of its classifier.

  Args:
    student_logits: [n, classes], of the training images in evaluation mode.
    teacher_logits: [n, classes], finite, of the same images.
    labels: int[n], classes of the same images.
    teacher_weight: w_t, of the comparison with the teacher.
    label_weight: w_l, of the comparison with one-hot labels.

  Returns:
    float32[classes].

  Raises:
    ValueError: the shapes differ, or both weights are 0.
  """
  student = jnp.asarray(student_logits, jnp.float32)
  teacher_shape = jnp.shape(teacher_logits)
  if student.ndim != 2 or student.shape != teacher_shape:
    raise ValueError(
      f"student {student.shape} and teacher {teacher_shape} must both be "
      "[n, classes]"
    )
  if jnp.shape(labels) != student.shape[:1]:
    raise ValueError(
      f"labels {jnp.shape(labels)} must be one for each of {len(student)} rows"
    )
  if not teacher_weight + label_weight > 0:
    raise ValueError("teacher_weight and label_weight cannot both be 0")
  wanted = target(
    teacher_logits,
    labels,
    teacher_weight=teacher_weight,
    label_weight=label_weight,
  )
  return gap(wanted.mean(0), student)


def by_mode(
  mean_target: np.ndarray | None, train_logits: np.ndarray | None, classes: int
) -> dict[str, np.ndarray]:
  """The offset of each mode: zero, and the `gap` to the target.

  Args:
    mean_target: float32[classes]; None where the loss fixes the offset.
    train_logits: float32[n, classes], the student's answers about the training
      images without augmentation, in evaluation mode; None without a target.
    classes: length of the logits.

  Returns:
    {mode: float32[classes]}; "fit" only where there is a target.
  """
  offsets: dict[str, np.ndarray] = {NONE: np.zeros(classes, np.float32)}
  if mean_target is not None and train_logits is not None:
    offsets[FIT] = gap(mean_target, train_logits)
  return offsets


def modes(mean_target: np.ndarray | None) -> tuple[str, ...]:
  """The modes in which a student is evaluated: "fit" only with a target."""
  return (NONE,) if mean_target is None else MODES


def metric(mode: str, reported: str, figure: str = "accuracy") -> str:
  """The name of a validation figure in metrics.jsonl.

  Args:
    mode: in which it was measured.
    reported: the mode whose figures the run reports.
    figure: the name that the data set's judge gives it.
  """
  if mode == reported:
    return f"val_{figure}"
  return f"offset_{mode}_val_{figure}"


def is_reported(name: str) -> bool:
  """Whether a metric is of the mode that the run reports."""
  return not name.startswith(tuple(metric(mode, "", "") for mode in MODES))


def fold(params, offset: jax.Array, path: tuple[str, ...]):
  """Adds `offset`, float[classes], to the leaf at `path`: the last bias."""
  return jax.tree_util.tree_map_with_path(
    lambda where, leaf: (
      leaf + jnp.asarray(offset, leaf.dtype) if _keys(where) == path else leaf
    ),
    params,
  )


class LogitsOf(Protocol):
  """A network's logits of a few fixed images, by its parameters."""

  def __call__(self, params: Any) -> np.ndarray:
    """Returns float32[n, classes], in evaluation mode."""
    ...


def find_bias(logits: LogitsOf, params: Any) -> tuple[str, ...]:
  """Finds the leaf that is added to the logits, by adding to it.

  Args:
    logits: params -> float32[n, classes] of the student.
    params: its parameters.

  Returns:
    The path of the leaf, for `fold`.

  Raises:
    UserError: the student's classifier has no bias.
  """
  before = logits(params)
  classes = before.shape[-1]
  size = 1 + np.abs(before).max()  # large, so that bfloat16 can tell
  added = size * np.linspace(-1, 1, classes, dtype=np.float32)
  for where, leaf in jax.tree_util.tree_leaves_with_path(params):
    if leaf.shape == (classes,):
      path = _keys(where)
      change = logits(fold(params, added, path)) - before
      if np.abs(change - added[None]).max() < 0.02 * size:
        return path
  raise UserError(
    "this student's classifier has no bias that could take up the offset: set "
    "hyper.offset to 'none' or give the classifier a bias"
  )


def _keys(where) -> tuple[str, ...]:
  """The keys of a path of jax, as strings."""
  return tuple(
    jax.tree_util.keystr((key,), simple=True, separator="/") for key in where
  )
