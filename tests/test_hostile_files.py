"""No file that is read runs code, takes memory or writes outside its folder."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from ckd_jax import data, teacher
from ckd_jax.errors import UserError
from ckd_jax.run import checkpoint
from ckd_jax.system import files
from tests.helpers.asking import answers, build
from tests.helpers.hostile import SPLIT
from tests.helpers.paths import ROOT
from tests.helpers.sets import IMAGE, LABEL, prepare, tiny

# These are read, and what is strange in them is left alone.
HARMLESS = {"set two dots", "set absolute"}


def test_every_reader_refuses_them_in_one_line_and_without_memory(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "tests.helpers.hostile", str(tmp_path)],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )
  assert done.returncode == 0, done.stderr
  said = json.loads(done.stdout)
  assert len(said) == 42  # as docs/reliability.md says
  read = {case for case, line in said.items() if line == "READ"}
  assert read == HARMLESS
  for case, line in said.items():
    assert not line.startswith("RAW") and "\n" not in line, (case, line)
    # A reader that tries to take it is stopped by the limit here alone.
    assert "allocate" not in line and "malloc" not in line, (case, line)
  outside = [path.name for path in tmp_path.rglob("*evil*")]
  assert not outside and not pathlib.Path("/tmp/ckd_jax_evil.npy").exists()


def test_features_of_a_prepared_set_name_no_code(tmp_path, monkeypatch):
  """tensorflow-datasets would import the module of every feature."""
  splits = {"train": tiny(25, "train"), "test": tiny(12, "test")}
  kinds = {"image": IMAGE, "label": LABEL, "id": tfds.features.Text()}
  place = prepare(tmp_path / "d", "tiny", splits, **kinds)
  (tmp_path / "evilmod.py").write_text(
    f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  text = (place / "features.json").read_text()
  kind = "tensorflow_datasets.core.features.text_feature.Text"
  for name in ("evilmod.Text", "tests.helpers.hostile.Bomb", "nodots"):
    (place / "features.json").write_text(text.replace(kind, name))
    with pytest.raises(UserError, match="may not name code"):
      data.load("tiny", path=tmp_path / "d")
  assert not (tmp_path / "ran").exists() and "evilmod" not in sys.modules
  (place / "features.json").write_text(text)
  assert len(data.load("tiny", path=tmp_path / "d").train.ids) == 25


@pytest.mark.parametrize("name", ["journal.jsonl", "lock", "table.json"])
def test_a_link_in_a_table_leads_nowhere(tmp_path, name):
  mine = tmp_path / "mine"
  mine.write_text('{"all": "I have"}\n')
  folder = tmp_path / "given"
  folder.mkdir()
  (folder / name).symlink_to(mine)
  with pytest.raises(UserError):
    build(teacher.from_function(answers, "box"), SPLIT, range(5), folder)
  assert mine.read_text() == '{"all": "I have"}\n'


def test_a_link_in_the_place_of_a_file_is_no_file(tmp_path):
  mine = tmp_path / "mine"
  mine.write_text("all I have\n")
  (tmp_path / "metrics.jsonl").symlink_to(mine)
  with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl"):
    files.append(tmp_path / "metrics.jsonl", "more")
  files.write(tmp_path / "metrics.jsonl", b"new")  # replaces the link
  assert mine.read_text() == "all I have\n"
  assert not (tmp_path / "metrics.jsonl").is_symlink()
  (tmp_path / f".a.{os.getpid()}.tmp").symlink_to(mine)
  with pytest.raises(UserError, match="cannot write"):
    files.write(tmp_path / "a", b"new")
  assert mine.read_text() == "all I have\n"


def test_a_link_in_the_place_of_a_checkpoint_is_left_alone(tmp_path):
  mine = tmp_path / "mine"
  mine.mkdir()
  (mine / "manifest.json").write_text("mine")
  folder = tmp_path / "checkpoints"
  folder.mkdir()
  (folder / "00000005").symlink_to(mine)
  state = {"a": np.arange(3.0)}
  for step in (10, 20, 30):
    checkpoint.save(folder, step, state, {}, keep=1)
  assert checkpoint.restore(folder, state)[0] == 30
  assert (mine / "manifest.json").read_text() == "mine"
  assert (folder / "00000005").is_symlink()


def test_stored_arrays_are_those_of_the_manifest(tmp_path):
  """Before memory is taken: 100 GB of zeros are a few bytes of zarr."""
  small, large = {"a": np.zeros(3)}, {"a": np.zeros(3_000_000)}
  for name, state in (("small", small), ("large", large)):
    checkpoint.save(tmp_path / name, 1, state, {})
  place = epath.Path(tmp_path / "small" / "00000001")
  (place / "arrays").rmtree()
  (tmp_path / "large" / "00000001" / "arrays").rename(place / "arrays")
  manifest = checkpoint._manifest(place)
  (place / "manifest.json").unlink()
  manifest["files"] = checkpoint._digests(place)
  body = json.dumps(manifest, indent=1).encode()
  (place / "manifest.json").write_bytes(checkpoint._seal(body))
  with pytest.raises(UserError, match="other arrays than its manifest says"):
    checkpoint.restore(tmp_path / "small", small)
