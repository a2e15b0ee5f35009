"""AFD: attention decides which maps of the student follow which of a teacher's.

Every map is a value, where the network is active, and a point in a common
space: the teacher's are queries and the student's keys.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ckd_jax.methods import Init
from ckd_jax.methods._heads import (
  apply_batch_norm,
  apply_linear,
  batch_norm,
  linear,
)
from ckd_jax.methods._maps import attention
from ckd_jax.numerics import check_rows, constant, float32


class AFDHead(NamedTuple):
  """A linear layer and the batch norm behind it.

  Attributes:
    weight: float32[inputs, outputs].
    bias: float32[outputs]; the batch norm removes it again.
    scale: float32[outputs], of the batch norm.
    offset: float32[outputs], of the batch norm.
  """

  weight: jax.Array
  bias: jax.Array
  scale: jax.Array
  offset: jax.Array


class AFDHeads(NamedTuple):
  """What is trained beside the student.

  Attributes:
    query: a head for every map of the teacher, [channels, dim].
    key: a head for every map of the student, [channels, dim].
    bilinear: one head, [dim, teachers * dim], that all students' maps share:
      what it gives for one map of the teacher lies together.
    teacher_position: float32[teachers, dim].
    student_position: float32[students, dim].
  """

  query: tuple[AFDHead, ...]
  key: tuple[AFDHead, ...]
  bilinear: AFDHead
  teacher_position: jax.Array
  student_position: jax.Array


def afd_heads(
  key: jax.Array,
  student_channels: Sequence[int],
  teacher_channels: Sequence[int],
  *,
  dim: int = 128,
) -> AFDHeads:
  """Draws the heads: linear layers as in PyTorch, positions Xavier normal.

  Args:
    key: random key.
    student_channels: channels of the student's maps.
    teacher_channels: channels of the teacher's maps.
    dim: width of the common space.
  """
  students, teachers = len(student_channels), len(teacher_channels)
  of_heads, of_teacher, of_student = jax.random.split(key, 3)
  keys = iter(jax.random.split(of_heads, students + teachers + 1))

  def head(inputs, outputs=dim):
    return AFDHead(**linear(next(keys), inputs, outputs), **batch_norm(outputs))

  def position(key, maps):
    return (2 / (maps + dim)) ** 0.5 * jax.random.normal(key, (maps, dim))

  return AFDHeads(
    query=tuple(map(head, teacher_channels)),
    key=tuple(map(head, student_channels)),
    bilinear=head(dim, dim * teachers),
    teacher_position=position(of_teacher, teachers),
    student_position=position(of_student, students),
  )


def afd(
  student_maps: Sequence[jax.Array],
  teacher_maps: Sequence[jax.Array],
  heads: AFDHeads,
) -> jax.Array:
  """Sums attention times the mean squared difference of every two values.

  A value is the mean over channels of x^2 as one vector of length 1. A
  student's is pooled to the size of the teacher's first; where that is larger,
  pixels repeat.

  Args:
    student_maps: [n, h, w, c] each, of any sizes.
    teacher_maps: [n, h', w', c'] each, of any sizes. No gradient.
    heads: from `afd_heads`. The batch norms take the statistics of the batch.

  Returns:
    float32[n], one value per example.

  References:
    Ji, Heo and Park, arXiv 2102.02973, and its public code (without the weight,
    200).
  """
  weights = afd_attention(student_maps, teacher_maps, heads)
  teacher_maps = constant(*teacher_maps)
  total = jnp.zeros(len(weights))
  for t, theirs in enumerate(teacher_maps):
    target, size = attention(theirs, 2), theirs.shape[1:3]
    for s, ours in enumerate(student_maps):
      gap = jnp.mean(jnp.square(attention(ours, 2, size) - target), axis=1)
      total = total + weights[:, t, s] * gap
  return total


def heads_of_maps(dim: int) -> Init:
  """`Method.init` of a method whose maps are paired by attention.

  Args:
    dim: width of the space in which maps are compared.
  """

  def init(key, task, student, teacher):
    del task
    channels = ([x.shape[-1] for x in side.maps] for side in (student, teacher))
    return {"heads": afd_heads(key, *channels, dim=dim)}, {}

  return init


def afd_attention(
  student_maps: Sequence[jax.Array],
  teacher_maps: Sequence[jax.Array],
  heads: AFDHeads,
) -> jax.Array:
  """Computes how much each map of the student follows each of the teacher's.

  Args:
    student_maps: [n, h, w, c] each.
    teacher_maps: [n, h', w', c'] each. No gradient.
    heads: from `afd_heads`.

  Returns:
    float32[n, teachers, students], a softmax over the students' maps.

  Raises:
    ValueError: the maps are not as many as the heads, or the examples differ.
  """
  return jax.nn.softmax(afd_scores(student_maps, teacher_maps, heads), axis=-1)


def afd_scores(
  student_maps: Sequence[jax.Array],
  teacher_maps: Sequence[jax.Array],
  heads: AFDHeads,
) -> jax.Array:
  """Computes how well each two maps fit, the logits of the attention.

  Args:
    student_maps: [n, h, w, c] each.
    teacher_maps: [n, h', w', c'] each. No gradient.
    heads: from `afd_heads`.

  Returns:
    float32[n, teachers, students].

  Raises:
    ValueError: the maps are not as many as the heads, or the examples differ.
  """
  _check(student_maps, teacher_maps, heads)
  maps = float32(*student_maps), constant(*teacher_maps)
  student, teacher = ([jnp.mean(x, axis=(1, 2)) for x in side] for side in maps)
  keys = jnp.stack(
    [
      jax.nn.relu(_apply(head, x))
      for head, x in zip(heads.key, student, strict=True)
    ],
    axis=1,
  )
  queries = jnp.stack(
    [_apply(head, x) for head, x in zip(heads.query, teacher, strict=True)],
    axis=1,
  )
  n, students, dim = keys.shape
  keys = _apply(heads.bilinear, keys.reshape(n * students, dim))
  keys = keys.reshape(n, students, -1, dim)
  scores = jnp.einsum("nstd,ntd->nts", keys, queries, precision="highest")
  positions = jnp.einsum(
    "td,sd->ts",
    *float32(heads.teacher_position, heads.student_position),
    precision="highest",
  )
  return (scores + positions[None]) * dim**-0.5


def _apply(head: AFDHead, x: jax.Array) -> jax.Array:
  """[n, inputs] -> float32[n, outputs], normalised over the rows."""
  params = dict(zip(head._fields, float32(*head), strict=True))
  # Batch norm removes the bias: its gradient is rounding, and 0 in truth.
  params["bias"] = jax.lax.stop_gradient(params["bias"])
  return apply_batch_norm(params, apply_linear(params, x))


def _check(student_maps, teacher_maps, heads) -> None:
  found = len(student_maps), len(teacher_maps)
  if found != (len(heads.key), len(heads.query)):
    raise ValueError(
      f"{found[0]} student maps and {found[1]} teacher maps do not fit"
      f" {len(heads.key)} keys and {len(heads.query)} queries: make the heads"
      " with afd_heads for these maps"
    )
  for x in (*student_maps, *teacher_maps):
    check_rows(x, teacher_maps[0])
