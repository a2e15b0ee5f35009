"""A state to save, and a comparison of two."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class State(NamedTuple):
  step: jax.Array
  params: dict
  key: jax.Array
  extra: tuple


def make_state(seed: int = 0) -> State:
  key = jax.random.key(seed)
  params = {
    "conv": {"kernel": jax.random.normal(key, (3, 3, 4, 5))},
    "a/b.c~": jax.random.normal(key, (7,), jnp.bfloat16),
    "flag": jnp.array([True, False]),
    "half": jnp.float16(1.5),
  }
  keys = jax.random.split(jax.random.key(seed, impl="rbg"), 3)
  extra = ((), None, {}, [jnp.zeros((0, 2)), jnp.array(jnp.nan)], keys)
  return State(jnp.int32(seed), params, key, extra)


def raw(leaf) -> tuple:
  """Everything that must come back."""
  data = leaf
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    data = jax.random.key_data(leaf)
  data = np.asarray(data)
  return str(leaf.dtype), leaf.shape, data.tobytes()


def assert_same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  assert jax.tree.map(raw, found) == jax.tree.map(raw, wanted)


def bits(folder: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
  return [
    (path, 8 * path.stat().st_size)
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.stat().st_size
  ]


def flip(path: pathlib.Path, bit: int) -> None:
  data = bytearray(path.read_bytes())
  data[bit // 8] ^= 1 << bit % 8
  path.write_bytes(data)
