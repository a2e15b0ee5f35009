"""Samples images and groups: pure functions of (key, step), without a sort.

A pass over the data is a keyed bijection of 0..size-1, evaluated only at the
positions that a step needs: the cost of a batch does not grow with the table,
no order is stored, and `size` may be a tracer.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_ROUNDS = 24
_TRIES = 16  # none of them is accepted in 1 of 1e20 draws: then the first is
# A step folds its number into the run's key. No step has this number, so
# sampling and augmentation never use the same key.
_SAMPLING = 2**31 - 1


def permute_index(
  key: jax.Array, position: jax.Array, size: int | jax.Array
) -> jax.Array:
  """Returns the elements at some positions of a random order of 0..size-1.

  A swap-or-not shuffle: in each round every element is paired with its mirror
  image around a random point, and each pair changes places or not by one hash
  bit that both members share (Hoang, Morris and Rogaway, CRYPTO 2012).

  Args:
    key: determines the order.
    position: int32[...], each in [0, size).
    size: number of elements, below 2^30; may be a tracer.

  Returns:
    int32[...] in [0, size); distinct positions give distinct elements.
  """
  size = jnp.asarray(size, jnp.int32)
  point_key, bit_key = jax.random.split(key)
  points = jax.random.randint(point_key, (_ROUNDS,), 0, size, jnp.int32)
  salts = jax.random.bits(bit_key, (_ROUNDS,), jnp.uint32)

  def turn(element, drawn):
    point, salt = drawn
    mirror = point + size - element  # modulo size: below twice of it
    mirror = jnp.where(mirror >= size, mirror - size, mirror)
    swap = _hash_bit(jnp.maximum(element, mirror), salt)
    return jnp.where(swap, mirror, element), None

  element = jnp.asarray(position, jnp.int32)
  # Unrolled: an accelerator fuses all of it into one kernel.
  return lax.scan(turn, element, (points, salts), unroll=True)[0]


def _hash_bit(value: jax.Array, salt: jax.Array) -> jax.Array:
  word = value.astype(jnp.uint32) ^ salt
  for factor in (0x85EBCA6B, 0xC2B2AE35):
    word = (word ^ (word >> 16)) * jnp.uint32(factor)
  return ((word ^ (word >> 16)) & 1).astype(bool)


def batches(key, step, task, state=None) -> jax.Array:
  """Samples distinct images, every image once per pass.

  Images left over when the batch size does not divide the table wait for the
  next pass, which has a new order.

  Args:
    key: the run's key, the same in every step.
    step: int32, training steps before this one.
    task: gives num_examples and batch_size.
    state: ignored, so that this is a `Method.sample`.

  Returns:
    int32[batch, 1], rows of the table.

  Raises:
    ValueError: the batch is larger than the table (when its size is known).
  """
  del state
  if isinstance(task.num_examples, int):
    if task.batch_size > task.num_examples:
      raise ValueError(
        f"batch_size {task.batch_size} is more than the {task.num_examples} "
        f"{task.kind} to train on: lower it or raise the budget"
      )
  per_pass = jnp.maximum(task.num_examples // task.batch_size, 1)
  pass_key = jax.random.fold_in(_key(key), step // per_pass)
  position = (step % per_pass) * task.batch_size + jnp.arange(task.batch_size)
  return permute_index(pass_key, position, task.num_examples)[:, None]


def from_list(
  key, step, batch_size: int, members: jax.Array, num_rows, group: int
) -> jax.Array:
  """Takes the next rows of endless passes over a list, each in a new order.

  Args:
    key: the run's key, the same in every step.
    step: int32, training steps before this one.
    batch_size: number of rows to take.
    members: [capacity * group], row after row: flat, for accelerators copy a
      narrow table before they gather from it.
    num_rows: int32, rows in use, the first ones.
    group: members of a row.

  Returns:
    [batch_size, group].
  """
  position = step * batch_size + jnp.arange(batch_size, dtype=jnp.int32)

  def pick(position):
    pass_key = jax.random.fold_in(_key(key), position // num_rows)
    return permute_index(pass_key, position % num_rows, num_rows)

  first = jax.vmap(pick)(position)[:, None] * group
  return members[first + jnp.arange(group)[None]]


def distinct(key, count: int, size: int, num_examples) -> jax.Array:
  """Draws rows of distinct indices, uniformly over all such rows.

  Args:
    key: random key.
    count: number of rows.
    size: indices in a row.
    num_examples: indices are below it; may be a tracer.

  Returns:
    int32[count, size].

  Raises:
    ValueError: fewer examples than members (when the number is known).
  """
  if isinstance(num_examples, int) and num_examples < size:
    raise ValueError(f"a group of {size} needs {size} images: {num_examples}")
  columns: list[jax.Array] = []
  for member, member_key in enumerate(jax.random.split(key, size)):
    draw = jax.random.randint(member_key, (count,), 0, num_examples - member)
    # The k-th free index: skip those that are taken, in rising order.
    for taken in _rising(columns):
      draw = draw + (draw >= taken)
    columns.append(draw)
  return jnp.stack(columns, axis=1)


def _rising(columns: list[jax.Array]) -> list[jax.Array]:
  if not columns:
    return []
  return list(jnp.sort(jnp.stack(columns), axis=0))


def distinct_groups(
  key, num_examples, capacity: int, positives: int, negatives: int, limit: int
) -> tuple[jax.Array, jax.Array]:
  """Draws up to `limit` different groups (arXiv 2311.02253, its sampler).

  A group is a set of positives and a disjoint set of negatives; exchanging the
  two sides gives another group, reordering one side does not. If there are
  fewer than five times `limit` groups in all, they are numbered and a random
  `limit` of the numbers is kept; otherwise groups are drawn and repetitions
  dropped.

  Args:
    key: random key.
    num_examples: number of images to choose from; may be a tracer.
    capacity: static upper bound of num_examples.
    positives: images on the first side.
    negatives: images on the second side.
    limit: length of the list.

  Returns:
    int32[limit, positives + negatives], rows of the table, and the int32 number
    of rows in use.
  """
  size = positives + negatives
  draw_key, order_key = jax.random.split(key)

  drawn = distinct(draw_key, limit + limit // 4, size, num_examples)
  drawn = _sort_sides(drawn, positives)
  order = jnp.lexsort([drawn[:, column] for column in range(size)])
  ordered = drawn[order]
  repeats = jnp.all(ordered[1:] == ordered[:-1], axis=1)
  is_repeat = jnp.zeros(len(drawn), bool).at[order[1:]].set(repeats)
  drawn = drawn[jnp.argsort(is_repeat, stable=True)[:limit]]
  num_drawn = jnp.minimum(jnp.sum(~is_repeat), limit)

  few, exact = _count_groups(num_examples, positives, negatives, 5 * limit)
  number = jnp.arange(limit) % jnp.maximum(exact, 1)
  number = permute_index(order_key, number, jnp.maximum(exact, 1))
  second = _binomial_column(num_examples - positives, negatives)
  first_side = _unrank(number // second, positives, capacity)
  second_side = _unrank(number % second, negatives, capacity)
  for column in range(positives):
    second_side += second_side >= first_side[:, column, None]
  listed = jnp.concatenate([first_side, second_side], axis=1)

  groups = jnp.where(few, listed, drawn).astype(jnp.int32)
  return groups, jnp.where(few, jnp.minimum(exact, limit), num_drawn)


def _sort_sides(groups, positives):
  sides = groups[:, :positives], groups[:, positives:]
  return jnp.concatenate([jnp.sort(side, axis=1) for side in sides], axis=1)


def _count_groups(num_examples, positives, negatives, threshold):
  """Returns whether there are fewer than `threshold` groups, and how many."""
  total = _binomial_column(num_examples, positives, jnp.float32)
  total *= _binomial_column(num_examples - positives, negatives, jnp.float32)
  few = total < threshold
  return few, jnp.where(few, jnp.round(total), 1).astype(jnp.int32)


def _binomial_column(items, chosen: int, dtype=jnp.int32):
  """Computes C(items, chosen); int32 is exact where it is used, below 2^31."""
  value = jnp.float32(1.0)
  for k in range(chosen):
    value = value * (jnp.asarray(items, jnp.float32) - k) / (k + 1)
  limit = value if dtype == jnp.float32 else jnp.clip(jnp.round(value), 1, 2e9)
  return limit.astype(dtype)


def _unrank(rank, chosen: int, capacity: int):
  """Finds the `rank`-th subset of `chosen` (combinatorial number system)."""
  columns = []
  for k in range(chosen, 0, -1):
    counts = np.ones(capacity + 1)
    for j in range(k):
      counts = counts * (np.arange(capacity + 1) - j) / (j + 1)
    counts = np.minimum(np.round(counts), 2**31 - 1).astype(np.int32)
    counts = jnp.asarray(np.maximum(counts, 0))
    member = jnp.searchsorted(counts, rank, side="right") - 1
    rank = rank - counts[member]
    columns.append(member)
  return jnp.stack(columns[::-1], axis=1)


def beta(key: jax.Array, parameter: float) -> jax.Array:
  """Draws a number from Beta(parameter, parameter), in a bounded time.

  `jax.random.beta` tries again until both of its Gammas are accepted, a loop of
  unknown length. Here all tries are made at once.

  Args:
    key: random key.
    parameter: both parameters of the distribution, above 0.

  Returns:
    float32 scalar, 0 to 1.
  """
  if parameter == 1:
    return jax.random.uniform(key)
  first, second = (_log_gamma(k, parameter) for k in jax.random.split(key))
  # g / (g + h), of logarithms: a small parameter's Gammas are below 1e-38.
  return jax.nn.sigmoid(first - second)


def _log_gamma(key, shape: float) -> jax.Array:
  """Draws the logarithm of a Gamma(shape) number.

  The first of 16 tries that is accepted (Marsaglia and Tsang, ACM TOMS 2000),
  of which each has a chance of 0.95 or more, for Gamma(shape + 1); times
  U^(1/shape) it is of Gamma(shape).
  """
  normal_key, try_key, boost_key = jax.random.split(key, 3)
  d = shape + 2 / 3
  x = jax.random.normal(normal_key, (_TRIES,))
  cube = 1 + x / (9 * d) ** 0.5
  log_v = 3 * jnp.log(jnp.maximum(cube, 1e-6))
  log_u = jnp.log1p(-jax.random.uniform(try_key, (_TRIES,)))
  accepted = log_u < x * x / 2 + d * (1 - jnp.exp(log_v) + log_v)
  log_v = log_v[jnp.argmax(accepted & (cube > 0))]
  boost = jnp.log1p(-jax.random.uniform(boost_key)) / shape
  return jnp.log(d) + log_v + boost


def _key(key):
  return jax.random.fold_in(key, _SAMPLING)
