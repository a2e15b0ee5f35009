"""Files that were cut, mixed up or forged, and their readers."""

import contextlib
import fnmatch
import functools
import io
import json
import logging
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from ckd_jax import models, student, table
from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint, logger
from ckd_jax.system import sealed
from ckd_jax.table import formats, store
from ckd_jax.teacher.journal import Journal
from ckd_jax.teacher.ledger import Ledger

NAMES = tuple("abcd")
IDS = [f"train_{row}" for row in range(8)]
VALUES = np.random.default_rng(0).normal(size=(8, 4)).astype("f4")


class File(NamedTuple):
  """A kind of file.

  Attributes:
    write: fills a folder.
    name: of the file that is damaged in it; of several, the largest.
    read: the folder -> what it holds; equal is as good as new.
    guarded: which changes of a byte must be noticed: "all", "cut" or "none".
    seal: gives a right digest to other facts; None where it is no JSON.
  """

  write: Callable[[pathlib.Path], Any]
  name: str
  read: Callable[[pathlib.Path], Any]
  guarded: str = "all"
  seal: Callable[[Any], bytes] | None = None


def _journal(folder):
  journal = Journal(folder / "journal.jsonl")
  for row in range(4):
    journal.ask([IDS[row]])
    journal.answer([IDS[row]], VALUES[row : row + 1])
  journal.refuse([IDS[5]])


def _read_journal(folder):
  """Whether all ids and answers are true; a kill may have cut some off."""
  journal = Journal(folder / "journal.jsonl")
  known = dict(zip(IDS, VALUES, strict=True))
  return journal.asked.keys() <= known.keys() and all(
    name in known and (row == known[name]).all()
    for name, row in journal.answers.items()
  )


def _ledger(folder):
  ledger = Ledger(folder / "calls.json")
  ledger.enter({"sha256": "f" * 64, "rows": 8}, 1)


def _table(folder):
  table.Table.from_arrays(VALUES, ids=IDS).write(folder)


def _read_table(folder):
  held = table.read(folder)
  return held.ids.tolist(), held.answers.values.tolist(), held.info


def _info(facts) -> bytes:
  facts = {**facts} if isinstance(facts, dict) else facts
  if isinstance(facts, dict):
    facts["digest"] = store.digest(facts)
  return json.dumps(facts).encode()


def _sealed(facts) -> bytes:
  facts = sealed.seal(facts) if isinstance(facts, dict) else facts
  return json.dumps(facts).encode()


def _student(folder):
  params, state = models.get("cnn", 4).init(
    jax.random.key(0), jnp.zeros((1, 8, 8, 1))
  )
  facts = {"model": "cnn", "classes": "4", "mean": "[0.5]", "std": "[0.2]"}
  facts |= {"image_shape": "[8, 8, 1]", "class_names": json.dumps(NAMES)}
  student.save(folder / student.STUDENT, params, state, facts)


def _read_student(folder):
  params, state, facts = student.load(folder / student.STUDENT)
  return student.params_sha256(params, state), facts


LIKE = {"w": np.zeros((3, 4), "f4")}


def _checkpoint(folder):
  for step in (1, 2):
    checkpoint.save(folder, step, {"w": np.full((3, 4), step, "f4")}, {"n": 1})


def _read_checkpoint(folder):
  """The notes of the newest that is whole; a damaged one was told."""
  with told() as lines:
    step, state, notes = checkpoint.restore(folder, LIKE)
  assert (state["w"] == step).all()
  aside = [path.name for path in folder.glob("*.corrupt")]
  assert aside == ["00000002.corrupt"] * (step < 2)
  assert len(lines) == len(aside) and all("\n" not in line for line in lines)
  return notes


@contextlib.contextmanager
def told():
  """A list of the lines that are logged."""
  handler, lines = logging.Handler(logging.WARNING), []
  handler.emit = lambda record: lines.append(record.getMessage())
  log = logging.getLogger("ckd_jax")
  log.addHandler(handler)
  try:
    yield lines
  finally:
    log.removeHandler(handler)


def _manifest(facts) -> bytes:
  return checkpoint._seal(json.dumps(facts, indent=1).encode())


def _metrics(folder):
  for step in range(1, 4):
    logger.Logger(folder / "metrics.jsonl", step).log(step, loss=1.0)


def _read_metrics(folder):
  """Whether a run goes on after step 1 with lines of steps alone."""
  path = folder / "metrics.jsonl"
  logger.Logger(path, 1).log(2, loss=2.0)
  *kept, last = (json.loads(line) for line in path.read_bytes().splitlines())
  assert all(type(line["step"]) is int and line["step"] <= 1 for line in kept)
  assert last == {"step": 2, "loss": 2.0}
  return True


def _foreign(ending: str) -> File:
  """Answers of another program, which no digest guards."""

  def write(folder):
    path = folder / f"answers{ending}"
    arrays = {"logits": VALUES, "embedding": VALUES}
    if ending == ".npz":
      np.savez(path, ids=np.asarray(IDS), **arrays)
    elif ending == ".npy":
      np.save(path, VALUES)
    elif ending == ".safetensors":
      import safetensors.numpy

      safetensors.numpy.save_file(arrays, path)
    elif ending == ".parquet":
      import pyarrow as pa
      import pyarrow.parquet

      columns = {"ids": IDS, "logits": VALUES.tolist()}
      pyarrow.parquet.write_table(pa.table(columns), path)
    else:
      rows = (",".join(map(str, row)) for row in VALUES)
      lines = (",".join(pair) for pair in zip(IDS, rows, strict=True))
      path.write_text("\n".join(["ids,a,b,c,d", *lines]))

  def read(folder):
    path = folder / f"answers{ending}"
    found = formats.read(path.read_bytes(), path.name, "train", NAMES, None, 8)
    values, ids = np.asarray(found.values), found.ids
    assert values.ndim == 2 and values.shape[1] == 4 and len(values) <= 8
    assert np.issubdtype(values.dtype, np.floating)
    assert ids is None or np.shape(ids) == (len(values),)
    embedding = found.embedding
    assert embedding is None or len(embedding) == len(values)
    equal = [
      other is None or np.array_equal(other, one)
      for other, one in ((ids, IDS), (embedding, VALUES))
    ]
    whole = values.shape == VALUES.shape and bool(
      np.isclose(values, VALUES).all()
    )
    return all(equal) and whole

  # A zip holds sums of its members. The others hold none: a number that was
  # changed is a number, but a file that was cut is noticed, except a csv.
  guarded = {".npz": "all", ".csv": "none"}.get(ending, "cut")
  return File(write, f"answers{ending}", read, guarded)


FILES = {
  "journal": File(_journal, "journal.jsonl", _read_journal, seal=_sealed),
  "calls.json": File(
    _ledger,
    "calls.json",
    lambda folder: Ledger(folder / "calls.json")._parts,
    seal=_sealed,
  ),
  "table.json": File(_table, "table.json", _read_table, seal=_info),
  "part": File(_table, "part-00000.npz", _read_table),
  "student": File(_student, student.STUDENT, _read_student),
  "manifest": File(
    _checkpoint, "00000002/manifest.json", _read_checkpoint, seal=_manifest
  ),
  "arrays": File(_checkpoint, "00000002/arrays/*", _read_checkpoint),
  "metrics": File(_metrics, "metrics.jsonl", _read_metrics),
  **{
    ending: _foreign(ending)
    for ending in (".npz", ".npy", ".safetensors", ".parquet", ".csv")
  },
}

JSON = st.recursive(
  st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../x", "/etc/passwd", "9" * 400, "f" * 64, IDS[0]]),
  ),
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.text(max_size=6), inner, max_size=3),
  ),
  max_leaves=5,
)
_SPOT = st.floats(0, 1, exclude_max=True)
CHANGES = st.one_of(
  st.tuples(st.just("flip"), _SPOT, st.integers(0, 7)),
  st.tuples(st.just("cut"), _SPOT, st.just(0)),
  st.tuples(st.just("insert"), _SPOT, st.binary(max_size=20)),
  st.tuples(st.just("replace"), _SPOT, st.binary(max_size=20)),
  st.tuples(st.just("remove"), _SPOT, st.integers(1, 40)),
  st.tuples(st.just("repeat"), _SPOT, st.integers(1, 40)),
  st.tuples(st.just("whole"), _SPOT, st.binary(max_size=200)),
  st.tuples(st.just("json"), _SPOT, JSON),
  st.tuples(st.just("json"), _SPOT, JSON),
)
CASES = st.tuples(
  st.sampled_from([*FILES, *FILES, "journal", "table.json", "calls.json"]),
  st.lists(CHANGES, min_size=1, max_size=3),
)


def changed(data: bytes, change, seal) -> bytes:
  """The bytes after one change."""
  what, spot, by = change
  at = int(spot * len(data))
  if what == "json":
    return _with_json(data, spot, by, seal)
  if what == "flip":
    return (
      data[:at] + bytes(x ^ 1 << by for x in data[at : at + 1]) + data[at + 1 :]
    )
  return {
    "cut": lambda: data[:at],
    "insert": lambda: data[:at] + by + data[at:],
    "replace": lambda: data[:at] + by + data[at + len(by) :],
    "remove": lambda: data[:at] + data[at + by :],
    "repeat": lambda: data[: at + by] + data[at:],
    "whole": lambda: by,
  }[what]()


def _with_json(data: bytes, spot: float, new: Any, seal) -> bytes:
  """One value of the facts replaced, with a right digest."""
  if seal is None:
    return data
  lines = data.splitlines(keepends=True)
  for text in (data, data[: data.rstrip(b"\n").rfind(b"\n")], *lines[:1]):
    try:
      facts = json.loads(text)
    except (RecursionError, ValueError):
      continue
    if isinstance(facts, dict) and facts:
      key = sorted(facts)[int(spot * len(facts))]
      changed = seal({**facts, key: new})
    else:
      changed = seal(new)
    return changed + b"\n" + b"".join(lines[1:]) if text in lines else changed
  return data


@functools.cache
def _whole(kind: str) -> tuple[dict[str, bytes], Any]:
  """Every file of a folder of this kind, and what is read in it."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    FILES[kind].write(folder)
    found = {
      str(path.relative_to(folder)): path.read_bytes()
      for path in folder.rglob("*")
      if path.is_file()
    }
    return found, FILES[kind].read(folder)


def check(case) -> None:
  """What was written is read, or it is refused in one line."""
  kind, changes = case
  file = FILES[kind]
  whole, wanted = _whole(kind)
  damaged = max(
    fnmatch.filter(whole, file.name), key=lambda name: len(whole[name])
  )
  data = whole[damaged]
  for change in changes:
    data = changed(data, change, file.seal)
  forged = any(what == "json" for what, *_ in changes)
  logging.getLogger("ckd_jax").addHandler(logging.NullHandler())
  logging.getLogger("ckd_jax").propagate = False
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for path, content in whole.items():
      (folder / path).parent.mkdir(parents=True, exist_ok=True)
      (folder / path).write_bytes(data if path == damaged else content)
    with contextlib.redirect_stderr(io.StringIO()):
      try:
        found = file.read(folder)
      except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
  only_cut = all(what == "cut" for what, *_ in changes)
  if file.guarded == "all" or (file.guarded == "cut" and only_cut):
    assert forged or found == wanted, f"{kind}: {found}"
