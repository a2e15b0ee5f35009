"""Batch statistics of each device's own images, not of the whole batch."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from ckd_jax.methods import Model

_ROWS = PartitionSpec("data")
_ALL = PartitionSpec()


def per_device(model: Model, mesh: Mesh) -> Model:
  """Runs a network in train mode on each device's share of a batch, alone.

  Its batch norm then sees that share, as it does in PyTorch without SyncBN, and
  no device waits for another before the gradient. The new batch statistics are
  the mean of all devices'. A method's heads (ft, fitnet) are no part of the
  network: their batch norms see the whole batch.

  Args:
    model: the network, of any library.
    mesh: devices, with axes `students` and `data`; one student is trained.
  """
  if mesh.shape["data"] == 1:
    return model

  def apply(params, state, inputs, *, train, key=None):
    if not train:
      return model.apply(params, state, inputs, train=False, key=key)

    def share(params, state, inputs, key):
      if key is not None:
        key = jax.random.fold_in(key, lax.axis_index("data"))
      outputs, state = model.apply(params, state, inputs, train=True, key=key)
      return outputs, jax.tree.map(_mean, state)

    together = jax.shard_map(
      share,
      mesh=mesh,
      in_specs=(_ALL, _ALL, _ROWS, _ALL),
      out_specs=(_ROWS, _ALL),
      check_vma=False,
    )
    return together(params, state, inputs, key)

  return model._replace(apply=apply)


def _mean(leaf: Any) -> Any:
  """Over devices; counters are equal on all of them."""
  is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
  return lax.pmean(leaf, "data") if is_float else leaf
