"""The class offset that a loss of differences leaves free.

Such a loss does not change when one vector is added to every logit of the
student, so its argmax is arbitrary until an offset is chosen. The best one
costs no teacher call: the mean, over the training images, of target minus
student. It is added when a student is judged (mode "fit") and folded into the
classifier's bias when it is exported; the training state never holds it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.errors import UserError
from ckd_jax.methods import Batch, Method, Model, Outputs

NONE, FIT = "none", "fit"  # how a student may be judged


class OffsetPlan(NamedTuple):
  """What is done about the offset in one run.

  Attributes:
    mode: "none" or "fit", the way in which accuracies are reported.
    bias: path of the leaf in the student's parameters that takes up a fitted
      offset; None for mode "none".
  """

  mode: str = NONE
  bias: tuple[str, ...] | None = None


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
    labels: int[n].
    teacher_weight: w_t, of the comparison with the teacher.
    label_weight: w_l, of the comparison with one-hot labels.

  Returns:
    float32[classes].

  Raises:
    ValueError: the shapes differ, or both weights are 0.
  """
  student = jnp.asarray(student_logits, jnp.float32)
  teacher = jnp.asarray(teacher_logits, jnp.float32)
  if student.ndim != 2 or student.shape != teacher.shape:
    raise ValueError(
      f"student {student.shape} and teacher {teacher.shape} must both be "
      "[n, classes]"
    )
  if jnp.shape(labels) != student.shape[:1]:
    raise ValueError(
      f"labels {jnp.shape(labels)} must be one for each of {len(student)} rows"
    )
  if not teacher_weight + label_weight > 0:
    raise ValueError("teacher_weight and label_weight cannot both be 0")
  one_hot = jax.nn.one_hot(labels, student.shape[-1])
  target = teacher_weight * teacher + label_weight * one_hot
  target = target / (teacher_weight + label_weight)
  return jnp.mean(target - student, axis=0)


def mean_target(
  method: Method, labels: np.ndarray, teachers: tuple[Outputs, ...]
) -> np.ndarray | None:
  """What the student's mean logits should be.

  Args:
    method: whose `offset_target` says what its loss aims at.
    labels: int32[n], of the training images.
    teachers: Outputs of [n, ...], the answers from the table.

  Returns:
    float32[classes]; None where the loss fixes the offset by itself.
  """
  rows: Any = labels
  # No step is made of it: nobody looks at an index or at images.
  nothing: Any = None
  batch = Batch(nothing, nothing, labels=rows, teachers=teachers)
  target = method.offset_target(batch)
  return None if target is None else np.asarray(target).mean(0)


def by_mode(
  target: np.ndarray | None, train_logits: np.ndarray | None, classes: int
) -> dict[str, np.ndarray]:
  """The offset of each mode: zero, and mean(target) - mean(student logits).

  Args:
    target: from `mean_target`.
    train_logits: float32[n, classes], the student's answers about the training
      images without augmentation, in evaluation mode; None without a target.
    classes: how many there are.

  Returns:
    {mode: float32[classes]}; "fit" only where there is a target.
  """
  offsets: dict[str, np.ndarray] = {NONE: np.zeros(classes, np.float32)}
  if target is not None and train_logits is not None:
    offsets[FIT] = target - train_logits.mean(0)
  return offsets


def modes(target: np.ndarray | None) -> tuple[str, ...]:
  """The ways in which a student is judged: "fit" only with a target."""
  return (NONE,) if target is None else (NONE, FIT)


def fold(params, offset: jax.Array, path: tuple[str, ...]):
  """Adds `offset`, float[classes], to the leaf at `path`: the last bias."""
  return jax.tree_util.tree_map_with_path(
    lambda where, leaf: (
      leaf + jnp.asarray(offset, leaf.dtype) if _keys(where) == path else leaf
    ),
    params,
  )


def find_bias(
  model: Model, params, state, images: jax.Array
) -> tuple[str, ...]:
  """Finds the leaf that is added to the logits, by adding to it.

  Args:
    model: the student.
    params: its parameters.
    state: its batch statistics.
    images: float[n, h, w, c], normalised; a few are enough.

  Returns:
    The path of the leaf, for `fold`.

  Raises:
    UserError: the student's classifier has no bias.
  """

  def logits(params):
    outputs, _ = model.apply(params, state, images, train=False)
    return np.asarray(outputs.logits, np.float32)

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
  """A path of jax as the texts of its keys."""
  return tuple(
    jax.tree_util.keystr((key,), simple=True, separator="/") for key in where
  )
