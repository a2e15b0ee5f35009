"""The calls that a run pays for: limits, stops, and records."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.run import Given, logger, train
from tests.helpers import runs
from tests.helpers.paths import ROOT
from tests.helpers.runs import LINEAR, QUICK, oracle, questions, read, run

CALLABLE = (
  LINEAR,
  "--config.teacher.source=callable",
  "--config.teacher.path=tests.helpers.runs:oracle",
  "--config.teacher.part_size=25",
)
ARG = QUICK + "method=kd,steps=2"


@pytest.fixture(autouse=True)
def no_questions():
  questions.clear()


def test_max_calls_stops_a_run_that_goes_on_when_it_is_raised(tmp_path):
  """The callable counts: 30 calls, and then the other 50."""
  limit = "--config.teacher.max_calls="
  with pytest.raises(
    UserError, match=r"call 31 was not made, teacher.max_calls is 30: raise it"
  ):
    run(tmp_path / "run", *CALLABLE, f"{limit}30", arg=ARG)
  assert len(questions) == 30
  with pytest.raises(UserError, match="call 31 was not made"):
    run(tmp_path / "run", *CALLABLE, f"{limit}30", arg=ARG)
  assert len(questions) == 30
  summary = run(tmp_path / "run", *CALLABLE, f"{limit}90", arg=ARG)
  assert len(questions) == len(set(questions)) == 80
  assert summary["paid_calls"] == summary["teacher_calls"] == 80
  # Another run may use what is there, and buy ten images more.
  shared = f"--config.table.path={tmp_path / 'run' / 'table'}"
  more = (*CALLABLE, shared, "--config.budget=120", f"{limit}90")
  with pytest.raises(UserError, match="call 91 was not made"):
    run(tmp_path / "more", *more, arg=ARG)
  assert len(questions) == 90


def test_failed_attempts_stay_in_the_summary(tmp_path, monkeypatch):
  """Those of an earlier start, too, and they are limited over all starts."""

  def fails(images):
    questions.extend(image.tobytes() for image in images)
    if len(questions) % 4 == 0:
      raise OSError("busy")
    return np.ones((len(images), 10)) * images[0, 3, 3]

  retry = ("--config.teacher.back_off=0.0", "--config.teacher.timeout=60.0")
  limit = "--config.teacher.max_attempts="
  with monkeypatch.context() as patch:
    patch.setattr(runs, "oracle", fails)
    with pytest.raises(UserError, match=r"teacher.max_attempts is 50: raise"):
      run(tmp_path / "run", *CALLABLE, *retry, f"{limit}50", arg=ARG)
    assert len(questions) == 50
    summary = run(tmp_path / "run", *CALLABLE, *retry, f"{limit}200", arg=ARG)
  assert (summary["paid_calls"], summary["repeated_calls"]) == (80, 0)
  assert len(questions) == 80 + summary["failed_calls"] == 106
  again = run(tmp_path / "run", *CALLABLE, *retry, f"{limit}200", arg=ARG)
  assert again["failed_calls"] == 26


@pytest.mark.parametrize(
  "flag", ["max_calls=0", "max_calls=-3", "max_attempts=0", "timeout=-1.0"]
)
def test_a_bad_limit_is_one_line(flag):
  with pytest.raises(UserError, match=f"teacher.{flag.split('=')[0]}"):
    read(*CALLABLE, f"--config.teacher.{flag}", arg=ARG)


def interrupted(workdir, monkeypatch, after: int):
  """Ctrl-C while the callable answers about the image of this number."""

  def stop(images):
    answers = oracle(images)
    if len(questions) >= after:
      raise KeyboardInterrupt
    return answers

  with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
    patch.setattr(runs, "oracle", stop)
    run(workdir, *CALLABLE, arg=ARG)
    pytest.fail("it was not interrupted")


def test_paid_calls_survive_ctrl_c(tmp_path, monkeypatch):
  """In the middle of a part, in the middle of another, and while training."""
  for after in (10, 60):
    interrupted(tmp_path, monkeypatch, after)
    assert len(questions) == after

  def stop(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
    patch.setattr(logger.Logger, "log", stop)
    run(tmp_path, *CALLABLE, arg=ARG)
    pytest.fail("it was not interrupted")
  assert len(questions) == 82  # two were under way at a Ctrl-C
  summary = run(tmp_path, *CALLABLE, arg=ARG)
  assert len(questions) == 82
  assert (summary["paid_calls"], summary["repeated_calls"]) == (80, 2)
  ledger = json.loads((tmp_path / "calls.json").read_text())["parts"]
  assert sum(part["rows"] for part in ledger.values()) == 80
  # What another run pays of the same table is not ours, nor ours its.
  shared = f"--config.table.path={tmp_path / 'table'}"
  other = run(tmp_path / "other", *CALLABLE, shared, "--config.seed=3", arg=ARG)
  assert (other["paid_calls"], other["repeated_calls"]) == (0, 0)


KILLED = """
import os, signal, sys
from tests.helpers import runs
from tests.run import test_calls
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
after, asked = int(sys.argv[2]), open(sys.argv[1] + "-asked", "a")
def oracle(images, oracle=runs.oracle):
  print(len(images), file=asked, flush=True)
  answers = oracle(images)
  if len(runs.questions) == after:
    kill()
  return answers
runs.oracle = oracle
if after == 0:
  test_calls.logger.Logger.log = lambda *args, **metrics: kill()
test_calls.run(sys.argv[1], *test_calls.CALLABLE, arg=test_calls.ARG)
"""


@pytest.mark.slow
def test_what_was_paid_before_a_kill_stays_in_the_summary(tmp_path):
  """In two parts, and while training; the callable counts in a file."""
  workdir = tmp_path / "run"
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  for after in (10, 45, 0):
    command = [sys.executable, "-c", KILLED, str(workdir), str(after)]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
  asked = len((tmp_path / "run-asked").read_text().splitlines())
  assert asked == 82  # one was under way at each kill
  summary = run(workdir, *CALLABLE, arg=ARG)
  assert not questions
  assert summary["paid_calls"] + summary["repeated_calls"] == asked
  assert summary["paid_calls"] == summary["teacher_calls"] == 80


def test_a_run_begun_before_there_were_ledgers_knows_what_it_paid(tmp_path):
  """Its own table says so; a shared one may be paid for by others."""

  def stop(*_, **__):
    raise KeyboardInterrupt

  for shared in ("", f"--config.table.path={tmp_path / 'shared'}"):
    flags = (*CALLABLE, *filter(None, [shared]))
    workdir = tmp_path / f"run{bool(shared)}"
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(logger.Logger, "log", stop)
      with pytest.raises(KeyboardInterrupt, match="no checkpoint yet"):
        run(workdir, *flags, arg=ARG)
    (workdir / "calls.json").unlink()
    summary = run(workdir, *flags, arg=ARG)
    assert summary["paid_calls"] == (0 if shared else 80)
  assert len(questions) == 160


def test_ctrl_c_while_asking_says_what_is_kept(tmp_path, monkeypatch):
  def stop(images):
    if len(questions) == 30:
      raise KeyboardInterrupt
    return oracle(images)

  with monkeypatch.context() as patch:
    patch.setattr(runs, "oracle", stop)
    with pytest.raises(KeyboardInterrupt, match="30 of 80 answers are kept"):
      run(tmp_path, *CALLABLE, arg=ARG)
  run(tmp_path, *CALLABLE, arg=ARG)
  assert len(questions) == 80


def test_equal_answers_make_equal_tables_wherever_they_lie(tmp_path):
  digests = {
    run(tmp_path / name, *CALLABLE, arg=ARG)["table_digest"] for name in "ab"
  }
  assert len(digests) == 1


@pytest.mark.slow
def test_an_outside_table_with_embeddings_serves_rkd(digits, tmp_path):
  pixels = digits.train.inputs.reshape(len(digits.train.labels), -1)
  logits = 5 * np.eye(10)[digits.train.labels]
  file = tmp_path / "answers.npz"
  source = f"--config.teacher.path={file}"
  arg = QUICK + "method=rkd,teacher.source=table"
  np.savez(file, logits=logits)
  with pytest.raises(UserError, match="needs the teacher's embedding"):
    run(tmp_path / "run", "--config.student=cnn", source, arg=arg)
  np.savez(file, logits=logits, embedding=pixels / 16)
  run(tmp_path / "run", "--config.student=cnn", source, arg=arg)
  losses = [
    line["loss"]
    for line in logger.read_metrics(tmp_path / "run" / "metrics.jsonl")
    if "loss" in line
  ]
  assert len(losses) == 20 and losses[-1] < losses[0]


def given(workdir, answers, **config):
  flags = [f"--config.{key}={value}" for key, value in config.items()]
  return train.run(
    read(LINEAR, "--config.teacher.path=given", *flags, arg=ARG),
    workdir,
    given=Given(answers=answers),
  )


def test_an_array_a_table_and_a_file_say_the_same(digits, tmp_path):
  logits = np.random.default_rng(0).normal(size=(len(digits.train.labels), 10))
  logits = logits.astype(np.float16)  # as a file's table keeps it
  ids = digits.train.ids
  backwards = table.Table.from_arrays(logits[::-1], ids=ids[::-1])
  np.savez(tmp_path / "answers.npz", logits=logits)
  source = {"teacher.source": "table"}
  summaries = [
    given(tmp_path / "array", logits, **source),
    given(tmp_path / "table", backwards, **source),
    run(
      tmp_path / "file",
      LINEAR,
      f"--config.teacher.path={tmp_path / 'answers.npz'}",
      arg=ARG + ",teacher.source=table",
    ),
  ]
  assert len({one["params_sha256"] for one in summaries}) == 1
  assert [one["teacher_calls"] for one in summaries] == [80] * 3
  assert [one["paid_calls"] for one in summaries] == [0] * 3


def test_a_function_object_is_asked_within_the_budget(tmp_path):
  config = {"teacher.source": "callable"}
  summary = given(tmp_path / "run", lambda images: oracle(images), **config)
  assert len(questions) == summary["paid_calls"] == 80
  named = run(tmp_path / "named", *CALLABLE, arg=ARG)
  assert named["params_sha256"] == summary["params_sha256"]


def test_given_answers_that_do_not_fit(digits, paid, tmp_path):
  whole = np.zeros((len(digits.train.labels), 10))
  moved = table.read(paid[0])
  moved.info["fingerprint"] = "beef"
  for answers, message in (
    (whole[:-1], "1437 answers for 1438 training images"),
    (whole[:, :9], "9 classes and the data 10"),
    (np.zeros(()), r"shape \(\)"),
    (table.Table.from_arrays(whole[:3], ids=list("abc")), "80 of 80 images"),
    (moved, "not of these digits images"),
  ):
    with pytest.raises(UserError, match=message):
      given(tmp_path, answers, **{"teacher.source": "table"})
