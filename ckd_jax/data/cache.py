"""Decoded splits on disk, so that images are decoded once per machine.

One file per split: four .npy arrays after one another. It is written beside and
renamed, so two processes may do it at once; it is believed only if its pixels
still have the fingerprint that it carries.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import uuid
from collections.abc import Callable

import numpy as np

from ckd_jax.data.split import Split, make_split

_VERSION = 1  # raise it when the same files decode to other rows


def cached(name: str, key: tuple, decode: Callable[[], Split]) -> Split:
  """Returns `decode()`, or what it returned the last time for this key.

  Args:
    name: how the file begins, for people.
    key: everything on which the result depends; its repr is hashed.
    decode: is called where the cache has nothing, or something damaged.
  """
  folder = os.environ.get("CKD_JAX_CACHE") or "~/.cache/ckd_jax"
  digest = hashlib.sha256(repr((_VERSION, key)).encode()).hexdigest()[:16]
  file = f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{digest}.npy"
  path = pathlib.Path(os.path.expanduser(folder), file)
  split = _read(path)
  if split is None:
    split = decode()
    _write(path, split)
  return split


def stamp(path: os.PathLike) -> tuple:
  """What tells that a file has changed; its name alone where it is remote."""
  if not os.path.exists(path):
    return (os.fspath(path),)
  stat = os.stat(path)
  return os.fspath(path), stat.st_size, stat.st_mtime_ns


def _read(path: pathlib.Path) -> Split | None:
  try:
    with path.open("rb") as file:
      images, labels, ids, fingerprint = (
        np.lib.format.read_array(file, allow_pickle=False) for _ in range(4)
      )
    split = make_split(images, labels, ids)
  except Exception:  # absent, or damaged in any way: it is decoded again
    return None
  return split if split.fingerprint == str(fingerprint) else None


def _write(path: pathlib.Path, split: Split) -> None:
  temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("xb") as file:
      for array in split:
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    temporary.replace(path)
  except OSError as error:  # a full disk, or a folder that is not ours
    logging.getLogger(__name__).warning(
      "decoded images are not cached, they will be decoded again: %s", error
    )
    with contextlib.suppress(OSError):
      temporary.unlink()
