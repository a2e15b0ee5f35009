"""Wrong files of answers: one line names the mistake, and nothing is lost."""

import pickle

import numpy as np
import pytest

from ckd_jax import errors, main, table
from tests.helpers.commands import refused
from tests.helpers.paths import DIGITS


def _npz(path, **arrays):
  np.savez(path, **arrays)


TABLES = {
  "cut": lambda file, x, ids: file.write_bytes(_bytes(file, x)[:-500]),
  "empty": lambda file, x, ids: file.write_bytes(b""),
  "no archive": lambda file, x, ids: file.write_bytes(b"hello" * 99),
  "pickled": lambda file, x, ids: file.write_bytes(pickle.dumps(x)),
  "of objects": lambda file, x, ids: _npz(file, logits=x.astype(object)),
  "of text": lambda file, x, ids: _npz(file, logits=x.astype(str)),
  "of another array": lambda file, x, ids: _npz(file, answers=x),
  "of one row": lambda file, x, ids: _npz(file, logits=x[0]),
  "too short": lambda file, x, ids: _npz(file, logits=x[:-1]),
  "too few classes": lambda file, x, ids: _npz(file, logits=x[:, :9]),
  "with NaN": lambda file, x, ids: _npz(
    file, logits=np.where(np.arange(10) == 3, np.nan, x)
  ),
  "with +inf": lambda file, x, ids: _npz(
    file, logits=np.where(np.arange(10) == 3, np.inf, x)
  ),
  "without the ids it needs": lambda file, x, ids: _npz(
    file, logits=x[:700], ids=ids[:700]
  ),
  "with an id twice": lambda file, x, ids: _npz(
    file, logits=x, ids=np.r_[ids[1:2], ids[1:]]
  ),
  "of another data set": lambda file, x, ids: _npz(
    file, logits=x, ids=np.array([f"train_x{i}" for i in range(len(x))])
  ),
}
SAYS = {
  "cut": "cut",
  "empty": "empty",
  "no archive": "npz",
  "pickled": "pickle",
  "of objects": "objects",
  "of text": "numbers",
  "of another array": "answers",
  "of one row": "shape",
  "too short": "1437",
  "too few classes": "9 classes",
  "with NaN": "NaN",
  "with +inf": "inf",
  "without the ids it needs": "no answer",
  "with an id twice": "twice",
  "of another data set": "another data set",
}


def _bytes(file, x) -> bytes:
  _npz(file, logits=x)
  return file.read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_is_one_line(name, answers, digits, capfd, tmp_path):
  file = tmp_path / "answers.npz"
  TABLES[name](file, answers, np.asarray(digits.train.ids, str))
  before = file.read_bytes()
  workdir = tmp_path / "run"
  line = refused(
    capfd,
    f"--config={DIGITS}:teacher.source=table",
    f"--config.teacher.path={file}",
    "--config.student=tests.helpers.runs:linear",
    f"--workdir={workdir}",
  )
  assert SAYS[name] in line
  assert str(file) in line or str(workdir / "table") in line or "table" in line
  assert file.read_bytes() == before
  assert not (workdir / "config.json").exists()
  assert not list(workdir.rglob("*.tmp"))


def test_a_mended_file_is_read_again(answers, digits, capfd, tmp_path):
  """What a failed run imported must not hide the file that replaced it."""
  file = tmp_path / "answers.npz"
  flags = [
    f"--config={DIGITS}:teacher.source=table,steps=1,batch_size=16",
    f"--config.teacher.path={file}",
    "--config.student=tests.helpers.runs:linear",
    f"--workdir={tmp_path / 'run'}",
  ]
  _npz(file, logits=answers[:700], ids=np.asarray(digits.train.ids, str)[:700])
  assert "no answer" in refused(capfd, *flags)
  _npz(file, logits=answers)
  assert errors.command(main.main, flags) == 0, capfd.readouterr().err


def test_the_table_of_another_data_set(capfd, digits, answers, tmp_path):
  file, folder = tmp_path / "answers.npz", tmp_path / "table"
  _npz(file, logits=answers)
  moved = digits.train._replace(fingerprint="0" * 64)
  subject = table.Subject("other", "train", moved, digits.class_names)
  table.import_file(file, subject, folder)
  before = {path: path.read_bytes() for path in folder.iterdir()}
  line = refused(
    capfd,
    f"--config={DIGITS}:teacher.source=table",
    f"--config.teacher.path={folder}",
    f"--workdir={tmp_path / 'run'}",
  )
  assert "other" in line and "digits" in line
  assert before == {path: path.read_bytes() for path in folder.iterdir()}
