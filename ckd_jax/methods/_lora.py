"""Low-rank changes of a network's last blocks (LoRA)."""

import re
from typing import Any

import jax
import jax.numpy as jnp

_ALPHA = 16.0  # over the rank, scales a change


def init(key: jax.Array, weights: Any, *, rank: int, blocks: int) -> Any:
  """Makes factors for every kernel of the last blocks, whose product is 0.

  Args:
    key: random key.
    weights: nested dicts with `block_0`, `block_1`, ... at the top; only shapes
      count.
    rank: of the changes.
    blocks: how many blocks are changed, from the last on.

  Returns:
    {path of the kernel: {"a": [in, rank], "b": [rank, out]}}.

  Raises:
    ValueError: the network has no such blocks.
  """
  kernels = _kernels(weights, blocks)
  if not kernels:
    raise ValueError(
      "the teacher has no block_0, block_1, ... with kernels, as the"
      " transformers of the zoo have: choose one of them"
    )
  factors = {}
  for number, (path, (width, out)) in enumerate(kernels.items()):
    drawn = jax.random.normal(jax.random.fold_in(key, number), (width, rank))
    zeros = jnp.zeros((rank, out))
    factors[path] = {"a": drawn / jnp.sqrt(rank), "b": zeros}
  return factors


def apply(factors: Any, weights: Any) -> Any:
  """The weights with W + (16 / rank) a b in place of every changed kernel W.

  Args:
    factors: from `init`, perhaps trained.
    weights: as there.

  References:
    Hu et al., arXiv 2106.09685.
  """

  def changed(where, weight):
    factor = factors.get(_name(where))
    if factor is None:
      return weight
    scale = _ALPHA / factor["b"].shape[0]
    return weight + scale * (factor["a"] @ factor["b"])

  return jax.tree_util.tree_map_with_path(changed, weights)


def _kernels(weights: Any, blocks: int) -> dict[str, tuple[int, int]]:
  """Path -> shape of the matrices of the last blocks."""
  numbers = sorted(
    int(key.removeprefix("block_"))
    for key in weights
    if re.fullmatch(r"block_\d+", key)
  )
  last = {f"block_{number}" for number in numbers[-blocks:]}
  return {
    _name(where): leaf.shape
    for where, leaf in jax.tree_util.tree_leaves_with_path(weights)
    if leaf.ndim == 2 and _name(where[:1]) in last
  }


def _name(where) -> str:
  return jax.tree_util.keystr(where, simple=True, separator="/")
