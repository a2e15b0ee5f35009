"""Parts with a right sha256 that ckd_jax never wrote: one line each."""

import hashlib
import io
import os

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.table import Answers
from tests.helpers.answered import NAMES, ROWS


class Bomb:
  def __reduce__(self):
    return (os.abort, ())


@pytest.fixture
def whole(tmp_path, split, values):
  info = table.new_info(
    table.Subject("pets", "train", split, NAMES).facts(),
    teacher="t",
    missing=split.ids,
  )
  table.append(tmp_path / "t", info, split.ids, Answers(values))
  return tmp_path / "t"


def forge(folder, compress=False, **arrays):
  """Another first part, and a table.json that vouches for it."""
  data = io.BytesIO()
  (np.savez_compressed if compress else np.savez)(data, **arrays)
  (folder / "part-00000.npz").write_bytes(data.getvalue())
  info = table.read_info(folder)
  sha256 = hashlib.sha256(data.getvalue()).hexdigest()
  part = info["parts"][0] | {"sha256": sha256}
  table.write_info(folder, info | {"parts": [part]})


IDS = np.asarray([f"train_{row}" for row in range(ROWS)])
LOGITS = np.zeros((ROWS, 3), np.float16)
FORGED = {
  "pickled ids": {"ids": IDS.astype(object), "logits": LOGITS},
  "a bomb": {"ids": np.asarray([Bomb()] * ROWS), "logits": LOGITS},
  "no ids": {"logits": LOGITS},
  "no logits": {"ids": IDS},
  "11 classes": {"ids": IDS, "logits": np.zeros((ROWS, 11), np.float16)},
  "1-d": {"ids": IDS, "logits": LOGITS[:, 0]},
  "2-d ids": {"ids": IDS[:, None], "logits": LOGITS},
  "fewer logits": {"ids": IDS, "logits": LOGITS[:-1]},
  "fewer ids": {"ids": IDS[:-1], "logits": LOGITS},
  "strings": {"ids": IDS, "logits": LOGITS.astype(str)},
  "complex": {"ids": IDS, "logits": LOGITS.astype(complex)},
  "another array": {"ids": IDS, "logits": LOGITS, "more": LOGITS},
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_part_is_one_line(whole, case):
  forge(whole, **FORGED[case])
  for read in (table.read, table.check):
    with pytest.raises(UserError, match=r"part-00000\.npz holds no answers th"):
      read(whole)


def test_what_is_no_archive_is_one_line(whole):
  info = table.read_info(whole)
  (whole / "part-00000.npz").write_bytes(b"hello")
  part = info["parts"][0] | {"sha256": hashlib.sha256(b"hello").hexdigest()}
  table.write_info(whole, info | {"parts": [part]})
  with pytest.raises(UserError, match="holds no answers"):
    table.read(whole)


def test_rows_that_are_no_number_are_checked_and_never_learned_from(
  whole, split
):
  for value in (np.nan, np.inf):
    logits = LOGITS.copy()
    logits[3, 1] = value
    forge(whole, ids=IDS, logits=logits)
    report, is_clean = table.check(whole, split)
    assert report["non_finite_rows"] == 1 and not is_clean
    held = table.read(whole)
    assert len(held.rows(IDS[:3]).values) == 3
    with pytest.raises(UserError, match=r"1 of 7 answers hold NaN .* train_3"):
      held.rows(IDS)


def test_a_small_file_is_not_unpacked_to_a_large_one(whole, importing):
  """200 MB of zeros are 200 kB; the header says so before."""
  large = np.zeros((ROWS, 7_500_000), np.float32)
  forge(whole, compress=True, ids=IDS, logits=large)
  assert (whole / "part-00000.npz").stat().st_size < 1e6
  with pytest.raises(UserError, match="holds no answers"):
    table.read(whole)
  file = whole.parent / "large.npz"
  np.savez_compressed(file, logits=large)
  with pytest.raises(UserError, match="too much for 7 rows: it is not unpa"):
    importing(file)


def test_a_table_json_of_brackets_is_one_line(whole):
  for text in ("[" * 100_000, '{"digest": ' + "[" * 100_000):
    (whole / "table.json").write_text(text)
    with pytest.raises(UserError, match=r"table\.json is cut or damaged"):
      table.read(whole)


@pytest.mark.parametrize(
  "values",
  [np.zeros((ROWS, 3)), np.ones((ROWS, 1)) * np.arange(3.0)],
  ids=["zeros", "alike"],
)
def test_answers_that_teach_nothing_are_warned_about(
  values, whole, importing, capsys
):
  file = whole.parent / "constant.npz"
  np.savez(file, logits=values)
  importing(file)
  assert capsys.readouterr().err.count("teach nothing") == 1
  values[2, 1] += 1
  np.savez(file, logits=values)
  importing(file, whole.parent / "other")
  assert "teach nothing" not in capsys.readouterr().err
