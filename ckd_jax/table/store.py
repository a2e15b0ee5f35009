"""The files of a table: `table.json`, and parts guarded by their sha256.

A part is durable before the table.json that names it, and that one is durable
before the answers are used; a kill between the two leaves a stray file that the
next part overwrites.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ckd_jax.data import Member, read_members
from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.system import files
from ckd_jax.table.answers import Answers
from ckd_jax.table.form import Form
from ckd_jax.table.values import storage_dtype

_TUPLES = ("maps", "preactivations")
# The keys of table.json, and their types.
_FACTS = {
  "dataset": str,
  "split": str,
  "fingerprint": str,
  "class_names": list,
  "teacher": str,
  "kind": str,
  "view": str,
  "view_seed": int | None,
  "view_pad": int | None,
  "dtype": str | None,
  "fields": list,
  "calls": int,
  "repeated_calls": int,
  "missing": list,
  "parts": list,
}
_OPTIONAL = {"positions": int, "top_k": int}
_PART = {"file": str, "sha256": str, "rows": int}

Announce = Callable[[dict[str, Any]], None]


def digest(table: epath.PathLike | dict) -> str:
  """One sha256 for a whole table, given its folder or its `info`."""
  info = table if isinstance(table, dict) else read_info(table)
  facts = {key: info[key] for key in sorted(info) if key != "digest"}
  return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fields(info: dict[str, Any]) -> frozenset[str]:
  """Fields of Outputs in a table: "maps_0" and "maps_1" are `maps`.

  The most probable tokens stand for the logits.
  """
  names = frozenset(field.split("_")[0] for field in info["fields"])
  return names - {"top"} | {"logits"} if "top" in names else names


def require(path: epath.PathLike, info: dict, **expected) -> None:
  """Refuses a table of another teacher, view or data set.

  Args:
    path: folder of the table, for the message.
    info: contents of table.json.
    **expected: entries that it must have.

  Raises:
    UserError: names the first key in which table and run differ.
  """
  for key, value in expected.items():
    value = list(map(str, value)) if key == "class_names" else value
    if info.get(key) == value:
      continue
    advice = "choose another table.path"
    if key == "teacher" and _network(info.get(key)) == _network(value) != "":
      advice = (
        "the same network with other weights: restore its file from a copy, or"
        f" {advice}"
      )
    if key == "fingerprint":
      advice = f"other data, or texts in other tokens (dataset.text): {advice}"
    raise UserError(
      f"the table {path} has {key} {_short(info.get(key))} and this run"
      f" {_short(value)}: {advice}"
    )


def _network(name) -> str:
  """A local teacher's name without the digest of its weights."""
  found = re.fullmatch(r"(.*):[0-9a-f]{16}", str(name))
  return found[1] if found else ""


def _short(value) -> str:
  return text if len(text := repr(value)) < 80 else f"{text[:77]}..."


def exists(path: epath.PathLike) -> bool:
  """Whether the folder holds a table, with or without rows."""
  return (epath.Path(path) / "table.json").exists()


def read_info(path: epath.PathLike) -> dict[str, Any]:
  """Reads table.json and checks its digest.

  Raises:
    UserError: the file is missing, cut or changed, or describes no table.
  """
  file = epath.Path(path) / "table.json"
  try:
    info = json.loads(files.read(file))
    whole = info["digest"] == digest(info)
  except OSError as error:
    raise UserError(
      f"{path} is not a table: it has no readable table.json"
    ) from error
  except (KeyError, RecursionError, TypeError, ValueError) as error:
    raise UserError(
      f"{file} is cut or damaged: restore it from a copy"
    ) from error
  if not whole:
    raise UserError(
      f"{file} was changed after it was written: restore it from a copy"
    )
  _require_facts(file, info)
  return info


def _require_facts(file, info: dict) -> None:
  """Refuses a table.json of another program, even with a right digest."""
  wanted = _FACTS | {
    key: _OPTIONAL[key] for key in _OPTIONAL.keys() & set(info)
  }
  wrong = _unlike(info, wanted) or [
    key for part in info["parts"] for key in _unlike(part, _PART)
  ]
  if wrong:
    raise UserError(
      f"{file} lacks {wrong[0]!r} or has it of another type: it was not written"
      " by ckd_jax; import the answers again"
    )


def _unlike(facts: Any, wanted: dict[str, Any]) -> list[str]:
  """The keys of `wanted` that `facts` lacks or has of another type."""
  if not isinstance(facts, dict):
    return list(wanted)
  return [
    key
    for key, kind in wanted.items()
    if key not in facts or not isinstance(facts[key], kind)
  ]


def write_info(path: epath.PathLike, info: dict) -> dict[str, Any]:
  """Makes table.json durable.

  Args:
    path: folder of the table.
    info: contents, without or with an old digest.

  Returns:
    The contents with their digest.
  """
  info = info | {"digest": digest(info)}
  text = json.dumps(info, indent=1) + "\n"
  files.write(epath.Path(path) / "table.json", text.encode())
  return info


def read_answers(
  path: epath.PathLike,
) -> tuple[np.ndarray, Answers, dict[str, Any]]:
  """Reads a table, checking the sha256 of every part.

  Args:
    path: folder of the table.

  Returns:
    str[rows], the ids; arrays [rows, ...], the answers; contents of table.json.

  Raises:
    UserError: there is no table or no row, or a file is missing or damaged.
  """
  info = read_info(path)
  if not info["parts"]:
    raise UserError(f"the table {path} is empty: no answer was ever stored")
  parts = [_read_part(epath.Path(path), part, info) for part in info["parts"]]
  ids = np.concatenate([part.pop("ids") for part in parts])
  arrays = {
    key: np.concatenate([part[key] for part in parts]) for key in parts[0]
  }
  return ids, from_arrays(arrays), info


def _read_part(folder, part: dict, info: dict) -> dict[str, np.ndarray]:
  name = part["file"]
  if not re.fullmatch(r"part-\d{5,}\.npz", name):
    raise UserError(f"{folder}/table.json names a strange part {name!r}")
  try:
    data = files.read(folder / name)
  except OSError as error:
    raise UserError(
      f"{folder / name} is missing: restore it from a copy"
    ) from error
  if hashlib.sha256(data).hexdigest() != part["sha256"]:
    raise UserError(
      f"{folder / name} is cut or changed, its sha256 is not the one in"
      " table.json: restore it from a copy, or delete the table and make it"
      " again"
    )
  try:
    _check_members(read_members(io.BytesIO(data)), part["rows"], info)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      return dict(arrays)
  except Exception as error:  # zip, header and pickle errors are of any type
    raise UserError(
      f"{folder / name} holds no answers that ckd_jax wrote ({error}): import"
      " them again"
    ) from error


def _check_members(members: dict[str, Member], rows: int, info: dict) -> None:
  """Refuses a part with other arrays than table.json says, before unpacking."""
  if sorted(members) != sorted(["ids", *info["fields"]]):
    raise ValueError(f"it holds {', '.join(sorted(members)) or 'nothing'}")
  kinds = {"ids": "U", "top_ids": "i"}
  for name, (shape, dtype) in members.items():
    if shape[:1] != (rows,) or dtype.kind != kinds.get(name, "f"):
      raise ValueError(f"{name} is {dtype} of shape {shape} for {rows} rows")
  form = Form.of(info)
  wanted = form.shapes(rows)
  if form.top_k:
    wanted = {f"top_{key}": shape for key, shape in wanted._asdict().items()}
  else:
    wanted = {"logits": wanted}
  for name, shape in (*wanted.items(), ("ids", (rows,))):
    if members[name].shape != shape:
      raise ValueError(f"{name} are {members[name].shape[1:]}, not {shape[1:]}")


def to_arrays(answers: Answers) -> dict[str, np.ndarray]:
  """The arrays of a part by name; members of a tuple are numbered, `maps_0`.

  The file format calls the values `logits`, whatever their kind; table.json
  holds the kind.
  """
  values = answers.values
  arrays = {"logits": values}
  if isinstance(values, TopK):
    arrays = {f"top_{key}": part for key, part in values._asdict().items()}
  if answers.embedding is not None:
    arrays["embedding"] = answers.embedding
  for field in _TUPLES:
    for number, array in enumerate(getattr(answers, field)):
      arrays[f"{field}_{number}"] = array
  return {key: np.asarray(array) for key, array in arrays.items()}


def from_arrays(arrays: dict[str, np.ndarray]) -> Answers:
  """The inverse of `to_arrays`."""
  stages = {
    field: tuple(
      arrays[f"{field}_{number}"]
      for number in range(sum(key.startswith(f"{field}_") for key in arrays))
    )
    for field in _TUPLES
  }
  if "top_ids" in arrays:
    values: Any = TopK(*(arrays[f"top_{field}"] for field in TopK._fields))
  else:
    values = arrays["logits"]
  return Answers(values, arrays.get("embedding"), **stages)


def append(
  path: epath.PathLike,
  info: dict,
  ids: Sequence[str],
  answers: Answers,
  *,
  dtype: str | None = None,
  announce: Announce | None = None,
) -> dict[str, Any]:
  """Adds one durable part: first the part, then the table.json that names it.

  Args:
    path: folder of the table.
    info: contents of table.json, without the new part.
    ids: str[rows], ids of the images.
    answers: arrays [rows, ...].
    dtype: of the stored arrays; default: as precise as needed.
    announce: called with the part's file, sha256 and rows once it is durable
      and before table.json names it.

  Returns:
    `info` with the part, the dtype and the ids still missing.

  Raises:
    UserError: the parts before hold other fields, or the disk refuses.
  """
  arrays = to_arrays(answers)
  if info["parts"] and sorted(arrays) != info["fields"]:
    raise UserError(
      f"the table {path} holds {', '.join(info['fields'])} and the new"
      f" answers {', '.join(sorted(arrays))}: choose another table.path"
    )
  stored: dict[str, Any] = {
    # What is kept of the most probable tokens is small, and stays as it is.
    key: array
    if key.startswith("top_")
    else array.astype(dtype or storage_dtype(array, info["kind"]))
    for key, array in arrays.items()
  }
  data = io.BytesIO()
  np.savez(data, ids=np.asarray(ids, str), **stored)
  name = f"part-{len(info['parts']):05d}.npz"
  files.write(epath.Path(path) / name, data.getvalue())
  sha256 = hashlib.sha256(data.getvalue()).hexdigest()
  part = {"file": name, "sha256": sha256, "rows": len(ids)}
  if announce is not None:
    announce(part)
  values = stored["top_log_probs" if "top_ids" in stored else "logits"]
  dtypes = {values.dtype.name, info["dtype"] or "float16"}
  answered = set(map(str, ids))
  return write_info(
    path,
    info
    | {
      "dtype": max(dtypes, key=lambda name: np.dtype(name).itemsize),
      "fields": sorted(arrays),
      "missing": [name for name in info["missing"] if name not in answered],
      "parts": [*info["parts"], part],
    },
  )
