"""The headers of an .npz, read before anything of it is unpacked.

A few kilobytes can unpack to gigabytes, so shapes are checked first.
"""

import zipfile
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy


class Member(NamedTuple):
  """What an array says of itself.

  Attributes:
    shape: its sizes.
    dtype: of its numbers.
  """

  shape: tuple[int, ...]
  dtype: np.dtype


_HEADERS = {
  (1, 0): npy.read_array_header_1_0,
  (2, 0): npy.read_array_header_2_0,
}


def read_members(file: IO[bytes]) -> dict[str, Member]:
  """The arrays of an .npz by name.

  Args:
    file: open for reading; its position moves.

  Raises:
    Exception: of any type, as zip files and headers of others may be damaged.
  """
  members = {}
  with zipfile.ZipFile(file) as archive:
    for name in archive.namelist():
      with archive.open(name) as stream:
        version = npy.read_magic(stream)
        if version not in _HEADERS:
          raise ValueError(f"{name} is of version {version}")
        shape, _, dtype = _HEADERS[version](stream)
      members[name.removesuffix(".npy")] = Member(shape, dtype)
  return members
