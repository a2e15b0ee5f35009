"""What white-box methods share: maps in pairs, pooling, attention."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ckd_jax.methods import Outputs
from ckd_jax.numerics import check_rows, float32, normalise


def pairs(
  student: Outputs, teacher: Outputs, field: str = "maps"
) -> list[tuple[jax.Array, jax.Array]]:
  """Pairs the stage outputs of both networks, stem first.

  Args:
    student: the student's Outputs, of [batch, 1, ...].
    teacher: the teacher's Outputs, of [batch, 1, ...].
    field: which outputs to pair, "maps" or "preactivations".

  Returns:
    A list of (student, teacher), each [batch, h, w, c].

  Raises:
    ValueError: the networks give different numbers of maps, or fewer than two.
  """
  ours, theirs = getattr(student, field), getattr(teacher, field)
  if len(ours) != len(theirs) or len(ours) < 2:
    raise ValueError(
      f"the student gives {len(ours)} {field} and the teacher {len(theirs)}: "
      "this method pairs them by stage and needs two or more of each"
    )
  return [(s[:, 0], t[:, 0]) for s, t in zip(ours, theirs, strict=True)]


def first_of_group(maps: Sequence[jax.Array]) -> list[jax.Array]:
  """[batch, 1, h, w, c] each -> [batch, h, w, c] each."""
  return [x[:, 0] for x in maps]


def same_size(
  student: jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Averages the larger of two maps down to the size of the smaller.

  Args:
    student: [n, h, w, c].
    teacher: [n, h', w', c'].

  Returns:
    float32[n, min(h, h'), min(w, w'), c] and the same with c' channels.

  Raises:
    ValueError: the numbers of examples differ.
  """
  check_rows(student, teacher)
  sizes = zip(student.shape[1:3], teacher.shape[1:3], strict=True)
  size = tuple(map(min, sizes))
  return pool(student, size), pool(teacher, size)


def pool(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
  """Pools by adaptive averages, in PyTorch's bins.

  Args:
    x: [n, h, w, c].
    size: (height, width) of the result; where it is larger, pixels repeat.

  Returns:
    float32[n, height, width, c].
  """
  (x,) = float32(x)
  if x.shape[1:3] == size:
    return x
  rows, columns = map(_bins, x.shape[1:3], size)
  return jnp.einsum("ih,jw,nhwc->nijc", rows, columns, x, precision="highest")


def _bins(size: int, pooled: int) -> np.ndarray:
  """float32[pooled, size]: each row averages one bin; bins may overlap."""
  weights = np.zeros((pooled, size), np.float32)
  for i, row in enumerate(weights):
    row[i * size // pooled : -(-(i + 1) * size // pooled)] = 1
  return weights / weights.sum(axis=1, keepdims=True)


def attention(
  x: jax.Array, power: int, size: tuple[int, ...] | None = None
) -> jax.Array:
  """Computes where a map is active: the mean over channels of x^power.

  Args:
    x: [n, h, w, c].
    power: exponent, 1 or more; an odd one keeps the sign of negative values.
    size: (height, width) to which the mean is pooled; None keeps the map's.

  Returns:
    float32[n, height * width], rows of length 1; a map of zeros stays zero, and
    so does its gradient.
  """
  (x,) = float32(x)
  # Normalising removes these scales again; without them large values overflow.
  # Squares do so beyond 1e19 only, which spares a pass over the map.
  if power > 2:
    x = x / _largest(x, (1, 2, 3))
  energy = jnp.mean(x.reshape(len(x), -1, x.shape[-1]) ** power, axis=-1)
  if size is not None:
    energy = pool(energy.reshape(*x.shape[:3], 1), size).reshape(len(x), -1)
  return normalise(energy / _largest(energy, 1))


def _largest(x: jax.Array, axes) -> jax.Array:
  """The largest magnitude, 1 or more; a constant."""
  x = lax.stop_gradient(x)
  return jnp.maximum(jnp.max(jnp.abs(x), axes, keepdims=True), 1.0)
