"""The headers of .npz and .npy, read before anything of them is unpacked.

A few kilobytes can unpack to gigabytes, so shapes are checked first; and a
header may lie, so it is compared with the bytes that are there.
"""

import io
import math
import zipfile
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

_DENSEST = 1032  # bytes that deflate can make of one
_LONGEST = 1 << 14  # bytes of a text


class Member(NamedTuple):
  """What an array says of itself.

  Attributes:
    shape: its sizes.
    dtype: of its numbers.
  """

  shape: tuple[int, ...]
  dtype: np.dtype

  @property
  def nbytes(self) -> int:
    """Bytes that it takes in memory."""
    return math.prod(self.shape) * self.dtype.itemsize


_HEADERS = {
  (1, 0): npy.read_array_header_1_0,
  (2, 0): npy.read_array_header_2_0,
}


def read_members(file: IO[bytes]) -> dict[str, Member]:
  """The arrays of an .npz by name.

  Args:
    file: open for reading; its position moves.

  Raises:
    Exception: of any type, as zip files and headers of others may be damaged,
      or say more than the file can hold.
  """
  members, size = {}, file.seek(0, io.SEEK_END)
  with zipfile.ZipFile(file) as archive:
    for info in archive.infolist():
      _check_entry(info, size)
      with archive.open(info) as stream:
        member = read_header(stream, info.file_size)
      name = info.filename.removesuffix(".npy")
      if name in members:  # NumPy might read the other one
        raise ValueError(f"it holds two arrays {name}")
      members[name] = member
  return members


def _check_entry(info: zipfile.ZipInfo, size: int) -> None:
  """Refuses an entry that says more of itself than `size` bytes can hold."""
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(f"{info.filename} is packed in a way NumPy does not write")
  packed = min(info.compress_size, size)
  if info.file_size > (packed + 1) * _DENSEST:
    raise ValueError(
      f"{info.filename} claims {info.file_size:,} bytes and has {packed:,}"
    )


def read_header(stream: IO[bytes], size: int, *, more: bool = False) -> Member:
  """The header of an .npy at the position of the stream.

  Args:
    stream: its position moves behind the header.
    size: bytes from there to the end of the array.
    more: whether others may follow it in these bytes.

  Raises:
    Exception: of any type; ValueError for a header that claims other bytes than
      there are, or for texts of more than 16 kB.
  """
  begun = stream.tell()
  version = npy.read_magic(stream)
  if version not in _HEADERS:
    raise ValueError(f"its header is of version {version}")
  shape, _, dtype = _HEADERS[version](stream)
  member = Member(shape, dtype)
  there = size - (stream.tell() - begun)
  # Python objects are of any length, and refused when they are read.
  is_true = member.nbytes <= there if more else member.nbytes == there
  if not dtype.hasobject and not is_true:
    raise ValueError(
      f"its header claims {member.nbytes:,} bytes, and there are {there:,}"
    )
  if dtype.kind in "USV" and dtype.itemsize > _LONGEST:
    raise ValueError(f"it holds texts of {dtype.itemsize:,} bytes")
  return member
