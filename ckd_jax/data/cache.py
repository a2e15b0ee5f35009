"""Decoded splits on disk, so that images are decoded once per machine.

One file per split: four .npy arrays in sequence. It is written under another
name and renamed, so two processes may do it at once; it is used only if its
pixels still have the fingerprint that it carries.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from ckd_jax.data.members import read_header
from ckd_jax.data.split import Split, make_split

_VERSION = 1  # raise it when the same files decode to other rows


def cached(name: str, key: tuple, decode: Callable[[], Split]) -> Split:
  """Returns `decode()`, or its cached result for this key.

  Args:
    name: readable beginning of the file's name.
    key: everything on which the result depends; its repr is hashed.
    decode: called if the cache has no file for this key, or a damaged one.
  """
  path = _place(name, key)
  split = _read(path)
  if split is None:
    split = decode()
    _write(path, split[:4])  # inputs, labels, ids, fingerprint
  return split


def indexed(
  name: str, key: tuple, look: Callable[[], tuple[Any, ...]]
) -> tuple[np.ndarray, ...]:
  """Like `cached`, for labels and ids of images that are not kept.

  Args:
    name: readable beginning of the file's name.
    key: everything on which the result depends; its repr is hashed.
    look: () -> arrays; called if the cache has no file, or a damaged one.
  """
  path = _place(f"{name}-index", key)
  found = _arrays(path)
  if not found or str(found[-1]) != _digest(found[:-1]):
    found = [np.asarray(array) for array in look()]
    found.append(np.asarray(_digest(found)))
    _write(path, found)
  return tuple(found[:-1])


def _digest(arrays) -> str:
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(repr((array.dtype.str, array.shape)).encode())
    content: Any = np.ascontiguousarray(array)
    digest.update(content)
  return digest.hexdigest()


def _place(name: str, key: tuple) -> pathlib.Path:
  folder = os.environ.get("CKD_JAX_CACHE") or "~/.cache/ckd_jax"
  digest = hashlib.sha256(repr((_VERSION, key)).encode()).hexdigest()[:16]
  file = f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}-{digest}.npy"
  return pathlib.Path(os.path.expanduser(folder), file)


def stamp(path: os.PathLike) -> tuple:
  """Name, size and time of a file; the name alone if it is remote."""
  if not os.path.exists(path):
    return (os.fspath(path),)
  stat = os.stat(path)
  return os.fspath(path), stat.st_size, stat.st_mtime_ns


def _arrays(path: pathlib.Path) -> list[np.ndarray]:
  """All arrays of a file; [] if it is absent or damaged."""
  arrays = []
  with contextlib.suppress(Exception), path.open("rb") as file:
    size = path.stat().st_size
    while (begun := file.tell()) < size:
      read_header(file, size - begun, more=True)
      file.seek(begun)
      array = np.lib.format.read_array(file, allow_pickle=False)
      arrays.append(array)
    return arrays
  return []


def _read(path: pathlib.Path) -> Split | None:
  try:
    images, labels, ids, fingerprint = _arrays(path)
    split = make_split(images, labels, ids)
  except Exception:  # absent or damaged: decode again
    return None
  return split if split.fingerprint == str(fingerprint) else None


def _write(path: pathlib.Path, arrays) -> None:
  temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("xb") as file:
      for array in arrays:
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    temporary.replace(path)
  except OSError as error:  # a full disk, or a folder that is not ours
    logging.getLogger(__name__).warning(
      "decoded images are not cached and will be decoded again: %s", error
    )
    with contextlib.suppress(OSError):
      temporary.unlink()
