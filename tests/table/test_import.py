"""Somebody else's answers: every format, and every way to be wrong."""

import json
import pickle

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.errors import UserError
from tests.helpers.answered import NAMES, ROWS, write

ENDINGS = ("npz", "npy", "safetensors", "csv", "parquet")


@pytest.mark.parametrize("ending", ENDINGS)
def test_formats_without_ids(tmp_path, importing, split, values, ending):
  write(tmp_path / f"in.{ending}", values)
  importing(tmp_path / f"in.{ending}")
  read = table.read(tmp_path / "out")
  np.testing.assert_array_equal(read.answers.values, values)
  np.testing.assert_array_equal(read.ids, split.ids)
  assert read.answers.values.dtype == np.float16


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("ending", [x for x in ENDINGS if x != "npy"])
def test_formats_with_ids(tmp_path, importing, split, values, ending, numbers):
  if ending == "safetensors" and not numbers:
    pytest.skip("safetensors holds no strings")
  order = np.random.default_rng(1).permutation(ROWS)[:-2]
  ids = order if numbers else split.ids[order]
  write(tmp_path / f"in.{ending}", values[order], ids)
  info = importing(tmp_path / f"in.{ending}")
  answers = table.read(tmp_path / "out").rows(split.ids[order])
  np.testing.assert_array_equal(answers.values, values[order])
  assert set(info["missing"]) == set(split.ids) - set(split.ids[order])


def test_columns_follow_the_class_names(tmp_path, importing, values):
  pa = pytest.importorskip("pyarrow")
  import pyarrow.parquet as pq

  columns = {name: values[:, row] for row, name in enumerate(NAMES)}
  shuffled = {name: columns[name] for name in ("emu", "cat", "dog")}
  labels = {"label": np.zeros(ROWS, np.int64)}
  pq.write_table(pa.table(shuffled | labels), tmp_path / "in.parquet")
  importing(tmp_path / "in.parquet")
  read = table.read(tmp_path / "out")
  np.testing.assert_array_equal(read.answers.values, values)


def test_csv_of_lists_numbered_columns_and_no_header(
  tmp_path, importing, values
):
  lists = "\n".join(f'"{json.dumps(row.tolist())}"' for row in values)
  plain = [",".join(map(str, row)) for row in values]
  turned = [",".join(map(str, row[::-1])) for row in values]
  texts = {
    "lists": f"logits\n{lists}\n",
    "numbered": "\n".join(["c_10,c_9,c_2", *turned]) + "\n",
    "bare": "\n".join(plain) + "\n",
  }
  for name, text in texts.items():
    (tmp_path / f"{name}.csv").write_text(text)
    importing(tmp_path / f"{name}.csv", tmp_path / name)
    read = table.read(tmp_path / name)
    np.testing.assert_array_equal(read.answers.values, values, err_msg=name)


def test_split_and_named_arrays(tmp_path, importing, values):
  np.savez(
    tmp_path / "in.npz",
    train_logits=values,
    test_logits=values[:1],
    mine=-values,
  )
  importing(tmp_path / "in.npz")
  importing(tmp_path / "in.npz", tmp_path / "mine", array="mine")
  first, second = table.read(tmp_path / "out"), table.read(tmp_path / "mine")
  np.testing.assert_array_equal(first.answers.values, values)
  np.testing.assert_array_equal(second.answers.values, -values)
  with pytest.raises(UserError, match=r"'nine'.*train_logits"):
    importing(tmp_path / "in.npz", tmp_path / "nine", array="nine")


def _npz(**arrays):
  def make(file, values, split):
    filled = {
      key: array(values, split) if callable(array) else array
      for key, array in arrays.items()
    }
    np.savez(file, allow_pickle=True, **filled)

  return make


class Bomb:
  """Unpickling this would run code."""

  def __reduce__(self):
    return (pytest.fail, ("a pickle was loaded",))


def _cut(fraction, ending="npz"):
  def make(file, values, split):
    whole = file.with_name(f"whole.{ending}")
    write(whole, values)
    data = whole.read_bytes()
    file.write_bytes(data[: int(len(data) * fraction)])

  return make


def _flip(file, values, split):
  np.savez(file, logits=values)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def _empty_parquet(file):
  import pyarrow as pa
  import pyarrow.parquet as pq

  columns = {"id": pa.array([], pa.string())}
  columns |= dict.fromkeys(NAMES, pa.array([], pa.float32()))
  pq.write_table(pa.table(columns), file)


def _put(value):
  def make(values, split):
    values = values.copy()
    values[3, 1] = value
    return values

  return make


def _no_row(values, split):
  return values[:0]


def _same(values, split):
  return values


def _ids(change):
  return lambda values, split: change(split.ids.copy())


def _twice(ids):
  ids[1] = ids[0]
  return ids


def _one_strange(ids):
  ids[2] = "train_9"
  return ids


MALFORMED = {
  "missing": ("in.npz", lambda *_: None, {}, "cannot read"),
  "ending": ("in.npx", _npz(logits=_same), {}, r"'.npx'.*did you mean '.np"),
  "empty": ("in.npz", lambda f, *_: f.write_bytes(b""), {}, "empty"),
  "not_zip": ("in.npz", lambda f, *_: f.write_text("hi"), {}, "not an npz"),
  "cut": ("in.npz", _cut(0.6), {}, "cut, damaged"),
  "cut_npy": ("in.npy", _cut(0.9, "npy"), {}, "cut, damaged"),
  "cut_safe": ("in.safetensors", _cut(0.9, "safetensors"), {}, "cut, damaged"),
  "cut_parquet": ("in.parquet", _cut(0.9, "parquet"), {}, "cut, damaged"),
  "flipped": ("in.npz", _flip, {}, "CRC"),
  "pickle": (
    "in.npz",
    lambda f, *_: f.write_bytes(pickle.dumps(Bomb())),
    {},
    "is a pickle",
  ),
  "objects": (
    "in.npz",
    _npz(logits=np.asarray([Bomb()], object)),
    {},
    "pickled Python objects",
  ),
  "object_ids": (
    "in.npz",
    _npz(logits=_same, ids=np.asarray([Bomb()] * ROWS, object)),
    {},
    "pickled Python objects",
  ),
  "no_array": ("in.npz", _npz(scores=_same), {}, "--array=NAME.*scores"),
  "words": ("in.npz", _npz(logits=np.asarray([["a"]])), {}, "not numbers"),
  "flat": ("in.npz", _npz(logits=np.zeros(7)), {}, r"shape \(7,\)"),
  "rows": ("in.npz", _npz(logits=np.zeros((5, 3))), {}, "5 rows.*7 images"),
  "classes": ("in.npz", _npz(logits=np.zeros((7, 4))), {}, "4 classes.*has 3"),
  "nan": ("in.npz", _npz(logits=_put(np.nan)), {}, "1 of 7 rows.*NaN"),
  "inf": ("in.npz", _npz(logits=_put(np.inf)), {}, "NaN or .inf"),
  "huge": (
    "in.npz",
    _npz(logits=lambda v, s: _put(1e300)(v.astype(float), s)),
    {},
    "NaN or .inf",
  ),
  "half": (
    "in.npz",
    _npz(logits=_put(7e4)),
    {"dtype": "float16"},
    "--dtype=float32",
  ),
  "kind": ("in.npz", _npz(logits=_same), {"kind": "prob"}, "mean 'probs'"),
  "probs": ("in.npz", _npz(logits=_same), {"kind": "probs"}, r"in \[0, 1\]"),
  "sums": (
    "in.npz",
    _npz(logits=np.full((7, 3), 0.5)),
    {"kind": "probs"},
    "sum to 1.5",
  ),
  "log_probs": ("in.npz", _npz(logits=_same), {"kind": "log_probs"}, "-inf, 0"),
  "no_rows": ("in.npz", _npz(logits=_no_row), {}, "no row of answers"),
  "no_rows_but_ids": (
    "in.npz",
    _npz(logits=_no_row, ids=_ids(lambda ids: ids[:0])),
    {},
    "no row of answers",
  ),
  "no_rows_npy": (
    "in.npy",
    lambda f, v, s: write(f, v[:0]),
    {},
    "no row of answers",
  ),
  "no_rows_safe": (
    "in.safetensors",
    lambda f, v, s: write(f, v[:0], np.arange(0)),
    {},
    "no row of answers",
  ),
  "no_rows_parquet": (
    "in.parquet",
    lambda f, v, s: _empty_parquet(f),
    {},
    "no row of answers",
  ),
  "twice": ("in.npz", _npz(logits=_same, ids=_ids(_twice)), {}, "train_0"),
  "count": (
    "in.npz",
    _npz(logits=_same, ids=_ids(lambda ids: ids[:3])),
    {},
    "3 ids for 7 rows",
  ),
  "strange": (
    "in.npz",
    _npz(logits=_same, ids=_ids(_one_strange)),
    {},
    "1 of 7 ids.*train_9 ",
  ),
  "other_set": (
    "in.npz",
    _npz(logits=_same, ids=_ids(lambda ids: np.char.add("x", ids))),
    {},
    "no id.*another data set",
  ),
  "float_ids": (
    "in.npz",
    _npz(logits=_same, ids=np.arange(7.0)),
    {},
    "strings or integers",
  ),
  "csv_cut": (
    "in.csv",
    lambda f, *_: f.write_text("a,b,c\n1,2,3\n4,5"),
    {},
    "row 3 has 2 fields, not 3",
  ),
  "csv_word": (
    "in.csv",
    lambda f, *_: f.write_text("a,b,c\n1,x,3\n"),
    {},
    "'x', which is not a number",
  ),
  "csv_header": ("in.csv", lambda f, *_: f.write_text("a,b\n"), {}, "no row"),
  "csv_binary": (
    "in.csv",
    lambda f, *_: f.write_bytes(b"\xff\xfe\x00"),
    {},
    "not a text file",
  ),
  "csv_ragged": (
    "in.csv",
    lambda f, *_: f.write_text('logits\n"[1,2,3]"\n"[1,2]"\n'),
    {},
    "from 2 to 3 numbers",
  ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_imports(tmp_path, importing, values, split, case):
  name, make, options, message = MALFORMED[case]
  if name.endswith("parquet"):
    pytest.importorskip("pyarrow")
  file = tmp_path / "f" / name
  file.parent.mkdir()
  make(file, values, split)
  if case == "ending":  # numpy adds the ending that it likes
    file.with_name("in.npx.npz").rename(file)
  with pytest.raises(UserError, match=message) as caught:
    importing(file, **options)
  assert name in str(caught.value)
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "out").exists()


def test_ruled_out_classes_may_stand_in_a_file(tmp_path, importing, values):
  values[2, 0] = -np.inf
  np.savez(tmp_path / "in.npz", logits=values)
  importing(tmp_path / "in.npz")
  read = table.read(tmp_path / "out")
  np.testing.assert_array_equal(read.answers.values, values)
  report, is_clean = table.check(tmp_path / "out")
  assert (report["non_finite_rows"], report["ruled_out_rows"]) == (1, 1)
  assert not is_clean
  assert np.isfinite(report["mean_entropy"])


def test_an_import_never_overwrites(tmp_path, importing, values):
  np.savez(tmp_path / "in.npz", logits=values)
  importing(tmp_path / "in.npz")
  with pytest.raises(UserError, match="already holds a table"):
    importing(tmp_path / "in.npz")
