"""PyTorch checkpoints that were made to harm their reader; see `hostile`.

python -m tests.helpers.hostile_torch FOLDER
"""

import io
import json
import os
import pathlib
import pickle
import struct
import sys
import tarfile
import zipfile

import numpy as np
import torch

from ckd_jax import torch_weights
from tests.helpers.hostile import Bomb, said
from tests.helpers.torch_tensors import cnn

_HUGE = 25_000_000_000  # float32: 100 GB
_MANY = 60_000_000  # float32: 240 MB, of which two do not fit


class Called:
  """A pickle that calls what `weights_only` allows to be called."""

  def __init__(self, function, *arguments):
    self._called = function, arguments

  def __reduce__(self):
    return self._called


def state(**changes) -> dict:
  """The tensors of `cnn`, some of them others."""
  tensors = {key: torch.tensor(value) for key, value in cnn().items()}
  return tensors | {key.replace("__", "."): x for key, x in changes.items()}


def saved(content, *, modern: bool = True) -> bytes:
  file = io.BytesIO()
  torch.save(content, file, _use_new_zipfile_serialization=modern)
  return file.getvalue()


def zipped_again(data: bytes, method=zipfile.ZIP_STORED, **changes) -> bytes:
  """A checkpoint whose members are packed, others, or more."""
  file = io.BytesIO()
  with (
    zipfile.ZipFile(io.BytesIO(data)) as old,
    zipfile.ZipFile(file, "w", method) as new,
  ):
    members = {name: old.read(name) for name in old.namelist()}
    for name, content in (members | changes).items():
      new.writestr(name, content)
  return file.getvalue()


def claimed(data: bytes, numel: int, *, modern: bool = True) -> bytes:
  """A checkpoint of one tensor of 1,000 numbers that claims to have more."""
  thousand, more = b"M\xe8\x03", b"\x8a\x08" + struct.pack("<q", numel)
  if not modern:
    return data.replace(thousand, more)
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    told = archive.read("archive/data.pkl").replace(thousand, more)
  return zipped_again(data, **{"archive/data.pkl": told})


def overlapping(data: bytes, times: int) -> bytes:
  """A zip whose directory names the bytes of one member many times."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    begin = archive.start_dir
  *_, size, _, _ = struct.unpack("<4s4HIIH", data[-22:])
  entries = data[begin : begin + size] * times
  count = min(8 * times, 0xFFFF)
  end = struct.pack(
    "<4s4HIIH", b"PK\5\6", 0, 0, count, count, len(entries), begin, 0
  )
  return data[:begin] + entries + end


def large_member(data: bytes) -> bytes:
  """A zip whose directory says that its first member has 4 GB."""
  at = data.index(b"PK\1\2")
  return data[: at + 20] + b"\xfe\xff\xff\xff" * 2 + data[at + 28 :]


def tar() -> bytes:
  """The oldest format, with a link and a member outside."""
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as archive:
    link = tarfile.TarInfo("storages")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
    archive.addfile(link)
    for name in ("../../evil", "storages/ckd_jax_evil", "tensors", "pickle"):
      member = tarfile.TarInfo(name)
      member.size = 2
      archive.addfile(member, io.BytesIO(b"N."))
  return file.getvalue()


def program() -> bytes:
  class Twice(torch.nn.Module):
    def forward(self, x):
      return 2 * x

  file = io.BytesIO()
  torch.jit.save(torch.jit.trace(Twice(), torch.ones(1)), file)
  return file.getvalue()


def checkpoints() -> dict[str, bytes]:
  """By what is wrong with them."""
  good, one = saved(state()), torch.ones(1)
  thousand = {"a": torch.arange(1000.0)}
  deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
  eye = torch.eye(32)
  zeros = {"archive/data/0": bytes(_MANY)}
  wide = {"fc__weight": one.expand(_HUGE // 32, 32)}
  wide["fc__bias"] = one.expand(_HUGE // 32)
  half = {f"x{i}": one.half().expand(_MANY) for i in range(9)}
  strange = {
    "sparse": eye.to_sparse(),
    "rows": eye.to_sparse_csr(),
    "no numbers": torch.empty(7, 32, device="meta"),
    "quantized": torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
    "nested": torch.nested.nested_tensor([one, torch.ones(2)]),
    "complex": torch.complex(torch.ones(7, 32), torch.ones(7, 32)),
  }
  return {
    "pickle": pickle.dumps(Bomb(), protocol=2),
    "code in a zip": saved({"a": one, "x": Bomb()}),
    "code": saved({"a": one, "x": Bomb()}, modern=False),
    "tar": tar(),
    "program": program(),
    "two dots": zipped_again(good, **{"archive/../../evil": b"x"}),
    "absolute": zipped_again(good, **{"/tmp/ckd_jax_evil.npy": b"x"}),
    "claims": claimed(saved(thousand), _HUGE),
    "claims, older": claimed(
      saved(thousand, modern=False), _HUGE, modern=False
    ),
    "short": zipped_again(saved(thousand), **{"archive/data/0": bytes(8)}),
    "large member": large_member(good),
    "overlapping": overlapping(good, 5000),
    "packed": zipped_again(good, zipfile.ZIP_DEFLATED),
    "bomb": zipped_again(
      saved({"a": torch.zeros(_MANY // 4)}), zipfile.ZIP_DEFLATED, **zeros
    ),
    "repeated": saved(state(**wide)),
    "repeated halves": saved(half),
    "made": saved(state(x=Called(torch.Tensor, _HUGE))),
    "bytes": saved(state(x=Called(bytearray, _HUGE))),
    "bytes, older": saved(state(x=Called(bytearray, _HUGE)), modern=False),
    "other case": zipped_again(good, **{"archive/DATA.PKL": deep}),
    "a zip behind pickles": saved(
      state(x=Called(bytearray, _HUGE)), modern=False
    )
    + good,
    "deep": deep,
    "deep in a zip": zipped_again(good, **{"archive/data.pkl": deep}),
    **{kind: saved(state(fc__weight=x)) for kind, x in strange.items()},
  }


def read(content: bytes, name: str, folder: pathlib.Path):
  del name
  (folder / "a.pth").write_bytes(content)
  tensors = torch_weights.load(folder / "a.pth")
  params, _ = torch_weights.convert("cnn", tensors, channels=1)
  wanted = np.asarray(cnn()["fc.weight"], np.float32).T
  assert (params["fc"]["weight"] == wanted).all()


if __name__ == "__main__":
  where = pathlib.Path(sys.argv[1])
  torch_weights.convert("cnn", cnn(), channels=1)  # starts JAX
  found = said(where, [("weights", read, checkpoints)])
  print(json.dumps(dict(found)), flush=True)
  os._exit(0)  # threads of PyTorch may lack memory for their end
