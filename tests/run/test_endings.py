"""How runs end, and what they say of it: finished, diverged, moved."""

import json
import shutil

import jax
import pytest

from ckd_jax import report
from ckd_jax.errors import UserError
from ckd_jax.run import logger
from ckd_jax.system import console
from tests.helpers.runs import (
  CNN,
  LINEAR,
  LINEAR_TEACHER,
  QUICK,
  from_table,
  interrupt_after,
  run,
)


def test_a_finished_run_is_believed_only_as_it_was_written(
  fitted, teacher_run, tmp_path
):
  """Every result of summary.json; one from before there was a digest, too."""
  shutil.copytree(fitted[1], tmp_path / "run")
  file = tmp_path / "run" / "summary.json"
  whole = file.read_bytes()

  def again():
    return run(
      tmp_path / "run",
      CNN,
      LINEAR_TEACHER,
      f"--config.teacher.path={teacher_run}",
      arg=QUICK + "teacher.source=checkpoint",
    )

  assert again() == fitted[0]
  for old, new in (
    (b'"test_accuracy": ', b'"test_accuracy": 1'),
    (b'"teacher_calls": 8', b'"teacher_calls": 9'),
    (b'"dtype": "float32"', b'"dtype": "float16"'),
  ):
    assert old in whole
    file.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(UserError, match=r"was changed.*delete it and the same"):
      again()
    with pytest.raises(UserError, match="was changed after it was written"):
      report.read(tmp_path / "run")
  facts = json.loads(whole)
  assert len(facts.pop("sha256")) == 64
  file.write_text(json.dumps(facts))
  assert again() == facts
  student = tmp_path / "run" / "student.safetensors"
  weights = student.read_bytes()
  student.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
  with pytest.raises(UserError, match="is not what the run wrote"):
    again()
  student.unlink()
  with pytest.raises(UserError, match=r"student\.safetensors is gone: restore"):
    again()


@pytest.mark.parametrize("log_every", [3, 1000])
def test_a_loss_that_is_no_number_is_never_saved(tmp_path, log_every):
  said = r"loss is .* at step 2, of .*: its update is too large for float32"
  with pytest.raises(UserError, match=said):
    run(
      tmp_path,
      LINEAR,
      "--config.optimizer.learning_rate=1e30",
      "--config.schedule=constant",
      f"--config.log_every={log_every}",
      arg=QUICK + "method=supervised,teacher.source=none",
    )
  assert not (tmp_path / "checkpoints").exists()
  assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
def test_a_diverged_run_says_which_checkpoint_is_whole(tmp_path, monkeypatch):
  """Or that there is none."""
  training = logger.Display.training

  def diverge(self, step, metrics):
    loss = float("nan") if step > last[0] else metrics["loss"]
    training(self, step, {**metrics, "loss": loss})

  monkeypatch.setattr(logger.Display, "training", diverge)
  arg = QUICK + "method=supervised,teacher.source=none"
  last = [0]
  for number, says in (
    (3, "no checkpoint was written before it"),
    (15, "the checkpoint of step 10 is whole"),
  ):
    last[0] = number
    with pytest.raises(UserError, match=rf"loss is nan at step .*{says}"):
      run(tmp_path, LINEAR, arg=arg)


@pytest.mark.slow
def test_other_devices_than_it_began_on_are_told(paid, tmp_path, monkeypatch):
  flags, arg = from_table(paid, LINEAR)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 12)
    run(tmp_path, *flags, arg=arg)
  notes = []
  monkeypatch.setattr(console, "note", notes.append)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 12)
    run(tmp_path, *flags, arg=arg)
  assert not notes
  alone = jax.devices()[:2]
  monkeypatch.setattr(jax, "devices", lambda *args: alone)
  run(tmp_path, *flags, arg=arg)
  (note,) = notes
  assert note.startswith("the run began on 4 x cpu")
  assert "goes on on 2 x cpu" in note
