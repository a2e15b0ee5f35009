"""Two commands that make the same table."""

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.system import files
from ckd_jax.table import foreign


def test_two_imports_at_once_are_one_table(
  tmp_path, importing, values, monkeypatch
):
  """The second one is refused, whether the first is writing or has ended."""
  np.savez(tmp_path / "in.npz", logits=values)
  np.savez(tmp_path / "other.npz", logits=-values)
  with files.lock(tmp_path / "out"), pytest.raises(UserError, match="using"):
    importing(tmp_path / "in.npz")
  new_info = foreign.new_info

  def meanwhile(*args, **facts):
    monkeypatch.undo()
    importing(tmp_path / "other.npz")
    return new_info(*args, **facts)

  monkeypatch.setattr(foreign, "new_info", meanwhile)
  with pytest.raises(UserError, match="already holds a table"):
    importing(tmp_path / "in.npz")
  held = table.read(tmp_path / "out").answers.values
  np.testing.assert_array_equal(held, -values)


def test_an_import_that_cannot_be_written_leaves_no_folder(
  tmp_path, importing, values, monkeypatch
):
  """Not even its lock."""
  np.savez(tmp_path / "in.npz", logits=values)

  def full(*args, **options):
    raise UserError("No space left on device")

  monkeypatch.setattr(foreign, "append", full)
  with pytest.raises(UserError, match="No space"):
    importing(tmp_path / "in.npz", tmp_path / "new" / "table")
  assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]
