"""Reads language models of GPT-2's layout, without running their code.

A folder holds config.json and model.safetensors, as the package `transformers`
writes them. Its blocks are those of `ckd_jax.models.transformer`, by other
names; matrices are [in, out] in both.
"""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath

from ckd_jax import models
from ckd_jax.errors import UserError
from ckd_jax.methods import Model
from ckd_jax.system import tensors

_PARTS = {
  "norm_1": "ln_1",
  "qkv": "attn.c_attn",
  "out": "attn.c_proj",
  "norm_2": "ln_2",
  "up": "mlp.c_fc",
  "down": "mlp.c_proj",
}
_TOP = {
  "embed.embedding": "wte.weight",
  "position": "wpe.weight",
  "norm.scale": "ln_f.weight",
  "norm.bias": "ln_f.bias",
  "fc.weight": "lm_head.weight",
}
_HEAD, _EMBEDDING = "lm_head.weight", "wte.weight"
_BUFFERS = (".attn.bias", ".attn.masked_bias")  # of older files: constants
# What the blocks compute, and the default of a config.json that leaves it out.
_FIXED: dict[str, tuple[Any, ...]] = {
  "model_type": ("gpt2",),
  "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
  "layer_norm_epsilon": (1e-5,),
  "scale_attn_weights": (True,),
  "scale_attn_by_inverse_layer_idx": (False,),
  "add_cross_attention": (False,),
}
_SIZES = {
  "vocab_size": 50257,
  "n_positions": 1024,
  "n_embd": 768,
  "n_layer": 12,
  "n_head": 12,
}


class Sizes(NamedTuple):
  """Numbers of a config.json.

  Attributes:
    vocabulary: of its tokenizer, without our padding.
    length: the longest text, in tokens.
    width: of the vectors.
    depth: number of blocks.
    heads: of each attention.
  """

  vocabulary: int
  length: int
  width: int
  depth: int
  heads: int

  def model(self, vocabulary: int) -> Model:
    """The network over so many ids of ours."""
    _, length, width, depth, heads = self
    return models.gpt2(
      vocabulary, length=length, width=width, depth=depth, heads=heads
    )


def read_sizes(folder: epath.PathLike) -> Sizes:
  """Reads config.json.

  Args:
    folder: of the model.

  Raises:
    UserError: there is none, or it is of another layout.
  """
  path = epath.Path(folder) / "config.json"
  try:
    facts = json.loads(path.read_text())
  except OSError as error:
    raise UserError(
      f"cannot read {path}: give the folder of a GPT-2, with config.json,"
      " model.safetensors and tokenizer.json"
    ) from error
  except (RecursionError, ValueError) as error:
    raise UserError(f"{path} is damaged: it is no JSON") from error
  if not isinstance(facts, dict):
    raise UserError(f"{path} is no config.json of a model")
  for key, known in _FIXED.items():
    if (found := facts.get(key, known[0])) not in known:
      raise UserError(
        f"{path}: {key} is {found!r}, and GPT-2's layout has {known[0]!r}: no"
        " other can be read"
      )
  sizes = [facts.get(key, default) for key, default in _SIZES.items()]
  if not all(type(size) is int and 0 < size < 2**31 for size in sizes):
    raise UserError(f"{path}: one of {', '.join(_SIZES)} is no size")
  made = Sizes(*sizes)
  if made.width % made.heads or facts.get("n_inner") not in (
    None,
    4 * made.width,
  ):
    raise UserError(
      f"{path}: n_embd {made.width} must be a multiple of n_head, and n_inner"
      " its fourfold"
    )
  return made


def load(folder: epath.PathLike, sizes: Sizes, numbers: np.ndarray) -> dict:
  """Reads the weights.

  Args:
    folder: of the model.
    sizes: from `read_sizes`.
    numbers: int[ids], the token of the file that each of our ids is; -1 for
      none, as of padding, whose vectors are zeros.

  Returns:
    The parameters of `sizes.model(len(numbers))`, float32.

  Raises:
    UserError: a tensor is missing, not expected, of another shape or not
      finite, or the file is absent, cut or damaged.
  """
  path = epath.Path(folder) / "model.safetensors"
  found = _read(path)
  if sizes.depth > len(found):  # before a network of that depth is made
    raise UserError(f"{path} has no {sizes.depth} blocks (n_layer)")
  network = sizes.model(sizes.vocabulary)
  tokens: Any = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  shapes, _ = jax.eval_shape(network.init, jax.random.key(0), tokens)
  shapes["fc"].pop("bias")  # GPT-2 has none
  leaves, structure = jax.tree.flatten_with_path(shapes)
  names = [_their_name(where) for where, _ in leaves]
  expected = {
    # A head is [ids, width] there.
    name: leaf.shape[::-1] if name == _HEAD else leaf.shape
    for name, (_, leaf) in zip(names, leaves, strict=True)
  }
  found.setdefault(_HEAD, found.get(_EMBEDDING, np.zeros(())))
  tensors.compare(
    f"GPT-2 ({path})", expected, {key: x.shape for key, x in found.items()}
  )
  arrays = {key: np.asarray(x, np.float32) for key, x in found.items()}
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise UserError(f"{path}: {name} holds numbers that are not finite")
  is_known = (numbers >= 0)[:, None]
  for name in (_EMBEDDING, _HEAD):
    arrays[name] = np.where(is_known, arrays[name][numbers], np.float32(0))
  arrays[_HEAD] = arrays[_HEAD].T
  params = jax.tree.unflatten(structure, [arrays[name] for name in names])
  params["fc"]["bias"] = np.zeros(len(numbers), np.float32)
  return params


def _read(path: epath.Path) -> dict[str, np.ndarray]:
  """The tensors by their names without a prefix and without constants."""
  try:
    held = tensors.read(path.read_bytes())
  except OSError as error:
    raise UserError(
      f"cannot read {path}: {error.strerror or error} (a model in several"
      " files, or a .bin, has to be saved as one model.safetensors)"
    ) from error
  except (safetensors.SafetensorError, ValueError) as error:
    raise UserError(f"{path} is cut or damaged ({error})") from error
  return {
    name.removeprefix("transformer."): array
    for name, array in held.items()
    if not name.endswith(_BUFFERS)
  }


def _their_name(where: tuple) -> str:
  """Of a leaf of our parameters."""
  ours = jax.tree_util.keystr(where, simple=True, separator=".")
  if ours in _TOP:
    return _TOP[ours]
  block, part, leaf = ours.split(".")
  number = block.removeprefix("block_")
  kind = "bias" if leaf == "bias" else "weight"
  return f"h.{number}.{_PARTS[part]}.{kind}"
