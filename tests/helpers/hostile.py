"""Files that were made to harm their reader, and what each reader says.

  python -m tests.helpers.hostile FOLDER

Prints a JSON object: case -> the one line, or "RAW ..." for another error, or
"READ". Memory is limited to 300 MB beyond what the imports take, so that a
reader which believes a header fails here.
"""

import hashlib
import io
import json
import os
import pathlib
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from ckd_jax import data, student, table
from ckd_jax.data import Split, cache, decode
from ckd_jax.errors import UserError

ROWS = 7
_MEMORY = 300 << 20  # bytes
SPLIT = Split(
  np.zeros((ROWS, 4, 4, 3), np.uint8),
  np.zeros(ROWS, np.int32),
  np.asarray([f"train_{row}" for row in range(ROWS)]),
  "f00d",
)
SUBJECT = table.Subject("pets", "train", SPLIT, ("a", "b", "c"))

Case = tuple[str, Callable[[pathlib.Path], object]]


class Bomb:
  """A pickle that ends its reader."""

  def __reduce__(self):
    return (os._exit, (66,))


def header(shape, descr: object = "<f4") -> bytes:
  """The header of an .npy, whatever follows it."""
  facts = {"descr": descr, "fortran_order": False, "shape": shape}
  text = repr(facts).encode()
  text += b" " * (-(len(text) + 11) % 64) + b"\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npy(array) -> bytes:
  file = io.BytesIO()
  np.save(file, array, allow_pickle=True)
  return file.getvalue()


def zipped(members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w", method) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return file.getvalue()


def safetensors(facts: object, body: bytes = b"") -> bytes:
  text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
  return struct.pack("<Q", len(text)) + text + body


HUGE = 25_000_000_000  # float32: 100 GB
LOGITS = npy(np.zeros((ROWS, 3), np.float32))
HALF = npy(np.zeros((ROWS, 3), np.float16))
LONG = header((ROWS,), "<U100000") + bytes(ROWS * 400_000)
TENSOR = {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}
ONE = {"params/a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
KNOWN = {
  "model": "cnn",
  "classes": "10",
  "class_names": json.dumps([str(digit) for digit in range(10)]),
  "mean": "[0.5]",
  "std": "[0.5]",
  "image_shape": "[8, 8, 1]",
}


def foreign() -> dict[str, bytes]:
  """Answers that another tool wrote."""
  ids, text = {"logits.npy": LOGITS}, header((ROWS,), "<U500000000")
  return {
    "claims.npy": header((ROWS, HUGE // ROWS)),
    "pickle.npy": npy(np.asarray([Bomb()] * ROWS)),
    "bare pickle.npz": b"\x80\x04N.",
    "claims.npz": zipped({"logits.npy": header((ROWS, HUGE // ROWS))}),
    "pickle.npz": zipped({"logits.npy": npy(np.asarray([Bomb()] * ROWS))}),
    "pickled ids.npz": zipped(ids | {"ids.npy": npy(np.asarray([Bomb()] * 7))}),
    "claimed ids.npz": zipped(ids | {"ids.npy": text}),
    "long ids.npz": zipped(ids | {"ids.npy": LONG}),
    "bytes.npz": zipped({"logits.npy": header((ROWS,), "|S1000000000")}),
    "embedding.npz": zipped(ids | {"embedding.npy": header((HUGE, 1))}),
    "packed.npz": zipped(ids, zipfile.ZIP_BZIP2),
    "header.safetensors": struct.pack("<Q", 1 << 60) + b"{}",
    "claims.safetensors": safetensors({"logits": TENSOR}),
    "deep.safetensors": safetensors(b'{"a":' + b"[" * 100_000),
    "deep.csv": b"id,x\n1," + b"[" * 100_000,
    "pickle.parquet": b"\x80\x04N.",
    "pickle.pkl": b"\x80\x04N.",
    "archive.tar.gz": b"\x1f\x8b",
    **parquets(),
  }


def parquets() -> dict[str, bytes]:
  """Small files that would unpack to gigabytes; none without pyarrow."""
  try:
    import pyarrow as pa
    import pyarrow.parquet as parquet
  except ImportError:
    return {}

  def written(**columns) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()

  many = pa.array(np.zeros(5_000_000, np.int8))
  wide = pa.array([np.zeros(1_000_000, np.int8)])
  text = pa.array(["x" * 100_000] * ROWS)
  numbers = pa.array(np.zeros(ROWS))
  return {
    "rows.parquet": written(logits=many),
    "wide.parquet": written(logits=wide),
    "texts.parquet": written(id=text, x=numbers),
  }


def students() -> dict[str, bytes]:
  """Networks with their weights."""
  deep = {f"params/{'a/' * 50_000}b": ONE["params/a"]}

  def told(**changes) -> bytes:
    return safetensors({"__metadata__": KNOWN | changes} | ONE, bytes(4))

  return {
    "tensor": safetensors({"params/a": TENSOR}),
    "deep": safetensors(deep, bytes(4)),
    "code": told(model="os:system"),
    "brackets": told(class_names="[" * 100_000),
    "image": told(image_shape="[1000000, 1000000, 1]"),
    "classes": told(classes="9" * 5000),
    "no classes": told(classes="1000000000"),
    "mean": told(mean="[0.5," * 1000),
  }


def sets() -> dict[str, bytes]:
  """Data sets in one .npz."""
  images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 2
  good = {
    "x_train.npy": npy(images),
    "y_train.npy": npy(labels),
    "x_test.npy": npy(images),
    "y_test.npy": npy(labels),
  }
  large = header((6, 100_000, 100_000, 3), "|u1")
  names = npy(np.asarray([Bomb(), Bomb()]))
  return {
    "claims": zipped(good | {"x_train.npy": large}),
    "names": zipped(good | {"class_names.npy": header((2,), "<U400000000")}),
    "long names": zipped(good | {"class_names.npy": LONG}),
    "pickle": zipped(good | {"class_names.npy": names}),
    "two dots": zipped(good | {"../../evil.npy": npy(images)}),
    "absolute": zipped(good | {"/tmp/ckd_jax_evil.npy": npy(images)}),
  }


def parts() -> dict[str, bytes]:
  """Parts of a table whose sha256 is right."""
  names = npy(SPLIT.ids)
  claimed = header((ROWS,), "<U500000000")
  return {
    "claimed ids": zipped({"ids.npy": claimed, "logits.npy": HALF}),
    "long ids": zipped({"ids.npy": LONG, "logits.npy": HALF}),
    "claims": zipped(
      {"ids.npy": names, "logits.npy": header((ROWS, HUGE), "<f2")}
    ),
    "pickle": zipped(
      {"ids.npy": npy(np.asarray([Bomb()] * ROWS)), "logits.npy": HALF}
    ),
  }


def pictures() -> dict[str, bytes]:
  """An image of 10,000,000,000 pixels in 1 kB."""

  def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return (
      struct.pack(">I", len(content))
      + name
      + content
      + struct.pack(">I", checksum)
    )

  side = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
  body = chunk(b"IHDR", side) + chunk(b"IDAT", zlib.compress(bytes(1000)))
  return {"pixels": b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")}


def _import(content: bytes, name: str, folder: pathlib.Path):
  (folder / name).write_bytes(content)
  return table.import_file(folder / name, SUBJECT, folder / "table")


def _read_part(content: bytes, name: str, folder: pathlib.Path):
  del name
  info = table.new_info(SUBJECT.facts(), teacher="t", missing=SPLIT.ids)
  answers = table.Answers(np.zeros((ROWS, 3), np.float32))
  table.append(folder, info, SPLIT.ids, answers)
  (folder / "part-00000.npz").write_bytes(content)
  info = table.read_info(folder)
  sha256 = hashlib.sha256(content).hexdigest()
  part = info["parts"][0] | {"sha256": sha256}
  table.write_info(folder, info | {"parts": [part]})
  return table.read(folder)


def _open(content: bytes, name: str, folder: pathlib.Path):
  del name
  (folder / student.STUDENT).write_bytes(content)
  return student.open_student(folder / student.STUDENT)


def _load(content: bytes, name: str, folder: pathlib.Path):
  del name
  (folder / "set.npz").write_bytes(content)
  return data.load("npz", path=str(folder / "set.npz"))


def _look(content: bytes, name: str, folder: pathlib.Path):
  """The cache decodes again what it cannot read."""
  (folder / "cache.npy").write_bytes(content)
  if cache._arrays(folder / "cache.npy") == []:
    raise UserError(f"{name} is decoded again")


def _decode(content: bytes, name: str, folder: pathlib.Path):
  del folder
  return decode.decode(io.BytesIO(content), name, 3, None)


CACHED = {
  "claims": header((HUGE,)) + bytes(50),
  "pickle": npy(np.asarray([Bomb()])),
}
READERS = (
  ("import", _import, foreign),
  ("part", _read_part, parts),
  ("student", _open, students),
  ("set", _load, sets),
  ("cache", _look, lambda: CACHED),
  ("picture", _decode, pictures),
)


def said(root: pathlib.Path, readers=READERS) -> Iterator[tuple[str, str]]:
  """Each case, and what its reader says."""
  files = [(kind, read, make()) for kind, read, make in readers]
  # Compiles nothing yet takes address space, so that is counted in advance.
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
  limit = pages * resource.getpagesize() + _MEMORY
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  for kind, read, contents in files:
    for number, (name, content) in enumerate(contents.items()):
      folder = root / "a" / "b" / f"{kind}{number}"
      folder.mkdir(parents=True)
      try:
        read(content, name, folder)
        yield f"{kind} {name}", "READ"
      except UserError as error:
        yield f"{kind} {name}", str(error)
      except BaseException as error:
        yield f"{kind} {name}", f"RAW {type(error).__name__}: {error}"


if __name__ == "__main__":
  print(json.dumps(dict(said(pathlib.Path(sys.argv[1])))))
