"""Streams batches that the host decodes ahead of their steps.

The rows of a step follow from its number alone, so the host knows what any
coming step needs: there is no shuffle buffer, no epoch to finish, and a run
resumes at a step by beginning there.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np

from ckd_jax.step.state import Examples
from ckd_jax.step.step import unflatten

_THREADS = 16  # batches decoded at the same time
_PREFETCHED = 2  # batches waiting on the devices, besides the one in use


class _Steps:
  """What step number i needs, for Grain: int32 indices, and inputs.

  Args:
    index_of: step -> int32[batch, group].
    fetch: int[n] rows of the table -> a tree of [n, ...].
    mine: int[n], the rows of a batch that this host's devices hold.
  """

  def __init__(self, index_of, fetch, mine: np.ndarray):
    self._index_of, self._fetch, self._mine = index_of, fetch, mine

  def __len__(self) -> int:
    return 2**31 - 1  # the run decides when to stop

  def __getitem__(self, step) -> tuple[np.ndarray, Any]:
    index = np.asarray(self._index_of(int(step)))
    mine = index[self._mine]
    return index, unflatten(self._fetch(mine.reshape(-1)), mine.shape)


def stream_batches(
  examples: Examples,
  first: int,
  index_of: Callable[[int], np.ndarray],
  fetch: Callable[[np.ndarray], Any],
  sharding,
  replicas,
) -> Iterator[Examples]:
  """The examples of each step from `first` on.

  Args:
    examples: labels and answers of the whole table.
    first: number of the steps done so far.
    index_of: step -> int32[batch, group], rows of the table.
    fetch: int[n] rows of the table -> a tree of [n, ...].
    sharding: of a batch, over its first axis.
    replicas: sharding of a copy on every device.

  Returns:
    An iterator of Examples with `index` and the inputs of that batch alone, in
    the order of the steps, on the devices.
  """
  batch_size = len(index_of(first))
  held = sharding.addressable_devices_indices_map((batch_size,)).values()
  # Not always contiguous: a mesh follows the connections of the devices.
  mine = np.unique(
    np.concatenate([np.arange(batch_size)[rows] for (rows,) in held])
  )
  source = _Steps(index_of, fetch, mine)
  options = grain.ReadOptions(
    num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS
  )
  decoded = grain.MapDataset.source(source)[first:].to_iter_dataset(options)

  def put(leaf: np.ndarray) -> jax.Array:
    def of_device(where):
      rows = np.searchsorted(mine, np.arange(batch_size)[where[0]])
      return leaf[rows[0] : rows[-1] + 1]  # contiguous on one device

    shape = (batch_size, *leaf.shape[1:])
    return jax.make_array_from_callback(shape, sharding, of_device)

  def placed() -> Iterator[Examples]:
    for index, inputs in decoded:
      yield examples._replace(
        index=jax.make_array_from_process_local_data(replicas, index),
        inputs=jax.tree.map(put, inputs),
      )

  return prefetch(placed(), _PREFETCHED)


def prefetch(items: Iterator, count: int) -> Iterator:
  """Yields the same items, each requested `count` items before its use."""
  waiting = collections.deque()
  for item in items:
    waiting.append(item)
    if len(waiting) > count:
      yield waiting.popleft()
  yield from waiting
