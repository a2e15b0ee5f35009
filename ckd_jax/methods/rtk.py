"""RTK: every map of the student imitates the teacher's maps that fit it."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ckd_jax.methods import Method
from ckd_jax.methods._afd import AFDHeads, afd_scores, heads_of_maps
from ckd_jax.methods._checks import at_least, share
from ckd_jax.methods._maps import attention, first_of_group
from ckd_jax.methods._terms import Extra, Inputs, make_method
from ckd_jax.numerics import constant, normalise


def rtk(
  student_maps: Sequence[jax.Array],
  teacher_maps: Sequence[jax.Array],
  heads: AFDHeads,
  *,
  keep: int,
) -> jax.Array:
  """Sums the mean squared differences of student and representative values.

  A value is where a map is active, as in `afd`. The representative of a
  student's map is the sum of attention times the teacher's values, brought to
  its size, as a vector of length 1.

  Args:
    student_maps: [n, h, w, c] each, of any sizes.
    teacher_maps: [n, h', w', c'] each, of any sizes. No gradient.
    heads: from `afd_heads`.
    keep: how many of the teacher's maps each map of the student attends to.

  Returns:
    float32[n], one value per example.

  References:
    After the abstract of arXiv 2206.12788; its formulas are not public.
  """
  weights = rtk_attention(student_maps, teacher_maps, heads, keep=keep)
  teacher_maps = constant(*teacher_maps)
  total = jnp.zeros(len(weights))
  for s, ours in enumerate(student_maps):
    size = ours.shape[1:3]
    values = [attention(theirs, 2, size) for theirs in teacher_maps]
    representative = sum(
      (weights[:, s, t, None] * value for t, value in enumerate(values)),
      start=jnp.zeros((1, 1)),
    )
    gap = attention(ours, 2) - normalise(representative)
    total = total + jnp.mean(jnp.square(gap), axis=1)
  return total


def rtk_attention(
  student_maps: Sequence[jax.Array],
  teacher_maps: Sequence[jax.Array],
  heads: AFDHeads,
  *,
  keep: int,
) -> jax.Array:
  """Computes how much each map of the student takes of each of the teacher's.

  Scores are those of `afd`. Of every example and map of the student, the `keep`
  best maps of the teacher share the attention; of equals, the first.

  Args:
    student_maps: [n, h, w, c] each.
    teacher_maps: [n, h', w', c'] each. No gradient.
    heads: from `afd_heads`.
    keep: how many are kept, 1 or more; all, where there are no more.

  Returns:
    float32[n, students, teachers], a softmax over the maps that are kept.
  """
  if not isinstance(keep, jax.core.Tracer):
    at_least(1, keep=keep)
  scores = afd_scores(student_maps, teacher_maps, heads).swapaxes(1, 2)
  # The few maps that are better are counted: a sort is slow on a TPU.
  mine, other = scores[..., :, None], scores[..., None, :]
  is_earlier = jnp.tri(scores.shape[-1], k=-1, dtype=bool)[None, None]
  is_better = (other > mine) | ((other == mine) & is_earlier)
  rank = jnp.sum(is_better, axis=-1)
  return jax.nn.softmax(jnp.where(rank < keep, scores, -jnp.inf), axis=-1)


def make(
  *,
  weight: float = 200.0,
  kept: float = 0.5,
  dim: int = 128,
  cross_entropy_weight: float = 1.0,
  kd_weight: float = 0.9,
  ckd_weight: float = 0.0,
) -> Method:
  """RTK after the abstract of arXiv 2206.12788, on the parts of `afd`.

  The abstract alone is public: representative keys of the teacher by
  similarity, useless ones filtered out. Here the attention of AFD is turned
  round, each map of the student asks the teacher's, and all but the best are
  left out; weights are those of AFD. Our maps are outputs of stages.

  Args:
    weight: weight of `rtk`.
    kept: share of the teacher's maps to which one of the student attends,
      rounded up; 1 leaves the filter out.
    dim: width of the space in which maps are compared.
    cross_entropy_weight: weight of the cross-entropy with the labels.
    kd_weight: weight of an added KD term at temperature 4.
    ckd_weight: weight of an added comparative term, `ckd_all` over pairs.

  Raises:
    ValueError: a value outside its range.
  """
  at_least(0, weight=weight)
  at_least(1, dim=dim)
  share(kept=kept)
  extra = Extra(cross_entropy_weight, kd_weight, ckd_weight)

  def terms(inputs: Inputs):
    ours, theirs = map(
      first_of_group, (inputs.student.maps, inputs.teacher.maps)
    )
    keep = max(1, math.ceil(kept * len(theirs) - 1e-9))
    value = rtk(ours, theirs, inputs.params["heads"], keep=keep)
    return {"rtk": (weight, jnp.mean(value))}

  return make_method(terms, extra, needs=("maps",), init=heads_of_maps(dim))
