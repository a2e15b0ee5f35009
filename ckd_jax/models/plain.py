"""Converts trees of any container to nested dicts, for a student's file."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax.methods import Model, Outputs


def to_dicts(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by path, as nested dicts with string keys."""
  nested: dict[str, Any] = {}
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  for path, leaf in leaves:
    *parents, last = _names(path)
    inner = nested
    for name in parents:
      inner = inner.setdefault(name, {})
    inner[last] = leaf
  return nested


def from_dicts(nested: dict[str, Any], like: Any) -> Any:
  """The inverse of `to_dicts`.

  Args:
    nested: nested dicts of arrays.
    like: a tree of the wanted structure; its leaves are not used.
  """
  paths, structure = jax.tree_util.tree_flatten_with_path(like)
  leaves = []
  for path, _ in paths:
    inner: Any = nested
    for name in _names(path):
      inner = inner[name]
    leaves.append(inner)
  return jax.tree.unflatten(structure, leaves)


def _names(path) -> list[str]:
  """The keys of a path of jax.tree_util, as strings."""
  names = [
    jax.tree_util.keystr((key,), simple=True, separator="/") for key in path
  ]
  return names or ["value"]  # the tree is one leaf


def is_plain(tree: Any) -> bool:
  """Whether a tree is nested dicts of arrays with string keys.

  An empty dict inside another does not count: a file cannot hold it.
  """
  if isinstance(tree, dict):
    hollow = any(isinstance(x, dict) and not x for x in tree.values())
    named = all(isinstance(key, str) for key in tree)
    return named and not hollow and all(map(is_plain, tree.values()))
  return hasattr(tree, "shape")


def plain(model: Model) -> Model:
  """The same network over nested dicts.

  Args:
    model: its `init` may return trees of any containers; nested dicts are
      passed through.
  """

  def shapes(inputs):
    row = jax.tree.map(_row, inputs)
    return jax.eval_shape(model.init, jax.random.key(0), row)

  def init(key, inputs):
    params, state = model.init(key, inputs)
    return _plain_tree(params), _plain_tree(state)

  def apply(params, state, inputs, *, train, key=None):
    like_params, like_state = shapes(inputs)
    outputs, new_state = model.apply(
      params if is_plain(like_params) else from_dicts(params, like_params),
      state if is_plain(like_state) else from_dicts(state, like_state),
      inputs,
      train=train,
      key=key,
    )
    return as_outputs(outputs), _plain_tree(new_state)

  return Model(init, apply)


def _row(leaf) -> jax.ShapeDtypeStruct:
  """One row of images, float32; or of tokens, which stay integers."""
  tokens = np.issubdtype(leaf.dtype, np.signedinteger)
  kind = leaf.dtype if tokens else jnp.float32
  return jax.ShapeDtypeStruct((1, *leaf.shape[1:]), kind)


def _plain_tree(tree) -> dict[str, Any]:
  return tree if is_plain(tree) else to_dicts(tree)


def as_outputs(answer: Any) -> Outputs:
  """`Outputs` of a network that returned them, or logits [n, classes] alone."""
  return answer if isinstance(answer, Outputs) else Outputs(answer)
