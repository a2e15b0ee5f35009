"""Reads PyTorch checkpoints of networks of the zoo, without running their code.

The trees of `ckd_jax.models` have PyTorch's names: a path joined with dots is a
tensor's name, and only the layout differs.
"""

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ckd_jax import models
from ckd_jax.errors import UserError
from ckd_jax.system import tensors as files

# By rank: OIHW -> HWIO for convolutions, [out, in] -> [in, out] for linear
# layers; and back.
_TO_JAX = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_NAMES = re.compile(  # that pickles of tensors hold, and notes beside them
  r"torch (\w+Storage|Size|device|[a-z]\w*)|torch\.storage UntypedStorage"
  r"|torch\._utils _rebuild_(parameter|tensor(_v[23])?)"
  r"|collections (Counter|OrderedDict)|_codecs encode"
  r"|(builtins|__builtin__) (complex|set)"
)
_ZIP = b"PK\x03\x04"  # a zip begins with it
_SAFE = "2.10"  # before it `weights_only` could be misled


def convert(
  name: str, state_dict: Mapping[str, np.ndarray], *, channels: int = 3
) -> tuple[dict, dict]:
  """Turns a PyTorch state dict into the parameters and state of a network.

  Args:
    name: of the network, one of `ckd_jax.models.names()`.
    state_dict: PyTorch's name -> array; a leading "module." is dropped. The
      number of classes is read from the classifier.
    channels: of the images: 1, 3 or 4.

  Returns:
    `params` and `state` (batch statistics), float32, for `Model.apply`.

  Raises:
    UserError: a tensor is missing, not expected, or has another shape.
  """
  tensors = {
    key.removeprefix("module."): np.asarray(value, np.float32)
    for key, value in state_dict.items()
    if not key.endswith("num_batches_tracked")
  }
  matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
  if len(matrices) != 1:
    raise UserError(
      f"not a {name}: expected one linear layer (the classifier) among the"
      f" tensors, found {len(matrices)}"
    )
  model = models.get(name, num_classes=len(matrices[0]))
  image: Any = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
  trees = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
  leaves, structure = jax.tree.flatten_with_path(trees)
  expected = {_torch_name(path): _torch_shape(leaf) for path, leaf in leaves}
  found = {key: tensors[key].shape for key in tensors}
  files.compare(name, expected, found)
  converted = [
    jnp.asarray(tensors[key].transpose(_TO_JAX[len(shape)]))
    for key, shape in expected.items()
  ]
  return jax.tree.unflatten(structure, converted)


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the tensors of a .pth or .th file, without running its code.

  A zip, as PyTorch has written since 1.6, has a sum of every member, which is
  compared here: PyTorch does not. The older format has none.

  Args:
    path: of a state dict, or of a checkpoint that holds one under
      "state_dict" or "model".

  Returns:
    PyTorch's name -> array.

  Raises:
    UserError: PyTorch is not installed or too old, the file is missing, cut or
      damaged, holds code or claims more than it holds, or holds no state dict.
  """
  try:
    import torch  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise UserError(
      "reading a PyTorch checkpoint needs PyTorch: pip install 'ckd_jax[torch]'"
    ) from error
  if torch.__version__ < _SAFE:
    raise UserError(
      f"PyTorch {torch.__version__} can be made to run what a checkpoint holds"
      f" (CVE-2026-24747): pip install 'torch>={_SAFE}'"
    )
  path = epath.Path(path)
  if not path.is_file():
    raise UserError(f"there is no file {path}")
  size = path.stat().length
  try:
    with path.open("rb") as file, warnings.catch_warnings():
      warnings.simplefilter("ignore")  # a file that is refused needs one line
      _check(file, size)
      file.seek(0)
      content = torch.load(file, map_location="cpu", weights_only=True)
  except Exception as error:  # damaged bytes raise errors of any type
    raise UserError(
      f"{path} was refused: it is damaged, or it holds more than tensors"
      " (save the state_dict alone with torch.save)"
    ) from error
  for wrapper in ("state_dict", "model"):
    if isinstance(content, Mapping) and wrapper in content:
      content = content[wrapper]
  if not isinstance(content, Mapping) or not all(
    isinstance(key, str) and isinstance(value, torch.Tensor)
    for key, value in content.items()
  ):
    raise UserError(f"{path} holds no state dict (name -> tensor)")
  if imaginary := [key for key in content if content[key].is_complex()]:
    raise UserError(f"{path}: the numbers of {imaginary[0]!r} are complex")
  claimed = sum(x.numel() * x.element_size() for x in content.values())
  if claimed > size:  # a view can repeat one number without end
    raise UserError(
      f"{path} has {size} bytes and claims tensors of {claimed}: save every"
      " tensor with its own numbers (tensor.clone())"
    )
  return {key: value.detach().float().numpy() for key, value in content.items()}


def _check(file: IO[bytes], size: int) -> None:
  """Refuses a file that is damaged or would take more memory than it has bytes.

  Args:
    file: any file; its position moves.
    size: of it, in bytes.

  Raises:
    Exception: of any type, as damaged bytes raise errors of any type.
  """
  # As PyTorch tells them apart: a zip may stand behind pickles, too.
  if file.read(len(_ZIP)) != _ZIP:  # the older format: five pickles, numbers
    file.seek(0)
    for _ in range(5):
      _check_names(file)
    return
  with zipfile.ZipFile(file) as archive:
    members = archive.infolist()
    is_packed = any(x.compress_type != zipfile.ZIP_STORED for x in members)
    if is_packed or sum(x.file_size for x in members) > size:
      raise ValueError("its members are packed, or larger than the file")
    if archive.testzip() is not None:
      raise ValueError("a sum is not that of its member")
    for member in members:
      if member.filename.lower().endswith(".pkl"):
        _check_names(archive.open(member))


def _check_names(pickled: IO[bytes]) -> None:
  """Refuses names that a state dict does not need; runs nothing.

  `weights_only` lets others be called that take any memory: bytearray(10**12).
  """
  for operation, argument, _ in pickletools.genops(pickled):
    if operation.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
      raise ValueError(f"it holds more than tensors: {argument}")


def _torch_name(path: tuple) -> str:
  """Of a leaf of (params, state); which of the two does not matter."""
  return jax.tree_util.keystr(path[1:], simple=True, separator=".")


def _torch_shape(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
  return tuple(leaf.shape[axis] for axis in _TO_TORCH[leaf.ndim])
