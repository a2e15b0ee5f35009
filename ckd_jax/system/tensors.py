"""Tensors of a safetensors file, whose reading runs no code."""

import ml_dtypes
import numpy as np
import safetensors

from ckd_jax.errors import UserError

DTYPES = {
  "BOOL": np.bool_,
  "BF16": ml_dtypes.bfloat16,
  **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
  **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
  **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def read(data: bytes) -> dict[str, np.ndarray]:
  """The arrays of a file, by name.

  Args:
    data: the file; that its header fits its length is checked first.

  Raises:
    ValueError, safetensors.SafetensorError: it is cut, or is no such file, or
      it holds numbers of a type that NumPy has not.
  """
  arrays = {}
  for name, tensor in safetensors.deserialize(data):
    if tensor["dtype"] not in DTYPES:
      raise ValueError(f"it holds {name!r} of type {tensor['dtype']}")
    array = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]])
    arrays[name] = array.reshape(tensor["shape"])
  return arrays


def compare(what: str, expected: dict, found: dict) -> None:
  """Compares the tensors of a file with those of a network.

  Args:
    what: the network, for the message.
    expected: name -> shape.
    found: name -> shape.

  Raises:
    UserError: a tensor is missing, not expected, or has another shape.
  """
  faults = [f"{key} is missing" for key in expected if key not in found]
  faults += [f"{key} is not expected" for key in found if key not in expected]
  faults += [
    f"{key} has shape {found[key]}, not {shape}"
    for key, shape in expected.items()
    if found.get(key, shape) != shape
  ]
  if faults:
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    raise UserError(f"not a {what}: {'; '.join(faults[:3])}{more}")
