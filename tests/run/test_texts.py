"""Whole runs on texts, with every kind of teacher."""

import json

import numpy as np
import pytest
import safetensors.numpy

import ckd_jax
from ckd_jax import errors, report, sweep, table
from ckd_jax.errors import UserError
from ckd_jax.run import train
from tests.helpers import texts
from tests.helpers.runs import contents, interrupt_after
from tests.helpers.texts import oracle, questions, read, sentences, write

PIXELS = {"cutmix", "mixup", "mixup3", "r2kd"}
MAPS = {"at", "fitnet", "fsp", "nst", "vid", "ab", "ft"}
LIVE = (
  "--config.student=transformer_tiny",
  "--config.teacher.source=checkpoint",
  "--config.teacher.live=true",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return write(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def asked(folder, tmp_path_factory):
  """A finished run that asked a black box: (its folder, summary, prints)."""
  questions.clear()
  workdir = tmp_path_factory.mktemp("asked") / "run"
  with pytest.MonkeyPatch.context() as patch:
    lines: list[str] = []
    patch.setattr("ckd_jax.system.console.say", lambda x="": lines.append(x))
    summary = train.run(read(folder), workdir)
  return workdir, summary, "\n".join(lines)


def test_a_black_box_is_asked_about_the_texts_themselves(asked):
  _, summary, _ = asked
  assert len(questions) == len(set(questions)) + repeated() == 24
  assert set(questions) <= set(sentences(40))
  assert summary["teacher_calls"] == summary["paid_calls"] == 24


def repeated() -> int:
  """Questions about rows whose texts are equal."""
  return len(questions) - len(set(questions))


def test_texts_are_called_texts(asked):
  _, summary, printed = asked
  assert "asking callable:tests.helpers.texts:oracle about 24 texts" in printed
  assert "30 labelled texts: 24 to learn from, 24 of them asked" in printed
  assert " MFLOPs a text" in printed
  assert "agreement on training texts" in printed
  assert " texts/s" in printed and "image" not in printed
  assert summary["inputs"] == "texts" and summary["texts_per_second"] > 0


def test_a_student_reads_texts(asked):
  workdir, summary, _ = asked
  student = ckd_jax.load_student(workdir, network="tests.helpers.texts:bag")
  one = student("w0 w3")
  assert one.shape == (2,)
  np.testing.assert_array_equal(student(["w0 w3", "w1"])[0], one)
  given = student(sentences(10, seed=1)).argmax(1) == np.arange(10) % 2
  assert summary["test_accuracy"] == pytest.approx(100 * given.mean())
  with pytest.raises(UserError, match="a list of str, or token ids"):
    student(np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
  ("method", "words"),
  [
    *(
      (name, "needs images, and the inputs of text are texts")
      for name in sorted(PIXELS)
    ),
    *((name, "gives no (maps|preactivations)") for name in sorted(MAPS)),
  ],
)
def test_methods_of_pixels_and_maps_are_refused(
  folder, tmp_path, method, words
):
  config = read(folder, arg=f"method={method}")
  questions.clear()
  with pytest.raises(UserError, match=words) as raised:
    train.run(config, tmp_path / "run")
  told = str(raised.value)
  assert "\n" not in told and not questions
  named = set(told.partition(": ")[2].replace(",", "").split())
  assert {"kd", "ckd", "logit_mse"} <= named
  assert not named & (PIXELS | MAPS)


def test_messages_about_texts(folder, tmp_path):
  for flags, words in (
    (("--config.budget=50",), "the training set has 40 texts"),
    (("--config.batch_size=25",), "more than the 24 texts to train on"),
    (
      ("--config.teacher.max_calls=3",),
      "teacher call 4 was not made.*fewer texts",
    ),
  ):
    with pytest.raises(UserError, match=words):
      train.run(read(folder, *flags), tmp_path / "run")
  branched = read(folder, "--config.teacher.source=none", arg="method=one")
  with pytest.raises(UserError, match=r"bag has none: bring one that has"):
    train.run(branched, tmp_path / "run")


def test_another_vocabulary_asks_nothing_again(folder, asked, tmp_path):
  flags = (
    f"--config.table.path={asked[0]}/table",
    "--config.dataset.text.vocabulary_size=5",
    "--config.dataset.text.length=3",
  )
  questions.clear()
  summary = train.run(read(folder, *flags), tmp_path / "run")
  assert not questions and summary["paid_calls"] == 0
  assert summary["table_digest"] == asked[1]["table_digest"]


@pytest.mark.slow
def test_a_kill_and_a_resume_give_the_same_student(
  folder, asked, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    interrupt_after(patch, 3)
    with pytest.raises(KeyboardInterrupt):
      train.run(read(folder), tmp_path / "run")
  train.run(read(folder), tmp_path / "run")
  one, other = (
    contents(path)["student.safetensors"]
    for path in (asked[0], tmp_path / "run")
  )
  assert one == other


@pytest.mark.slow
def test_streamed_texts_give_the_same_student(folder, asked, tmp_path):
  stream = "--config.dataset.placement=stream"
  train.run(read(folder, stream), tmp_path / "run")
  one, other = (
    safetensors.numpy.load_file(path / "student.safetensors")
    for path in (asked[0], tmp_path / "run")
  )
  for name, value in one.items():
    np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def teacher(folder, tmp_path_factory):
  """A transformer that labels trained, as a teacher's folder."""
  path = tmp_path_factory.mktemp("teacher") / "run"
  flags = ("--config.student=transformer_tiny", "--config.teacher.source=none")
  config = read(folder, *flags, arg="method=supervised")
  train.run(config, path)
  return path


@pytest.mark.slow
@pytest.mark.parametrize(
  ("arg", "row"), [("method=kd", 8), ("method=mixkd,hyper.target=live", 16)]
)
def test_a_live_teacher_reads_the_students_texts(
  folder, teacher, tmp_path, arg, row
):
  flags = (*LIVE, f"--config.teacher.path={teacher}")
  summary = train.run(read(folder, *flags, arg=arg), tmp_path / "run")
  assert summary["live_calls"] == 6 * row
  assert np.isfinite(summary["test_accuracy"])


@pytest.mark.slow
def test_a_local_teacher_of_another_vocabulary_is_refused(
  folder, teacher, tmp_path
):
  flags = (*LIVE[:2], f"--config.teacher.path={teacher}")
  fewer = "--config.dataset.text.vocabulary_size=5"
  with pytest.raises(UserError, match=r"has the vocabulary .*, the data"):
    train.run(read(folder, *flags, fewer), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kd", "mixkd"])
def test_seeds_together_are_those_in_turn(folder, tmp_path, method):
  flags = [
    f"--config=sst2.py:method={method},budget=30,{texts.QUICK}",
    f"--config.dataset.path={folder}",
    "--config.dataset.text.length=6",
    "--config.student=tests.helpers.texts:bag",
    "--config.teacher.source=callable",
    "--config.teacher.path=tests.helpers.texts:oracle",
    "--over=seed=1,2",
  ]
  found = {}
  for how in ("together", "in_turn"):
    sweep.main([*flags, f"--how={how}", f"--workdir={tmp_path / how}"])
    found[how] = [
      safetensors.numpy.load_file(tmp_path / how / seed / "student.safetensors")
      for seed in ("seed=1", "seed=2")
    ]
  for one, other in zip(*found.values(), strict=True):
    for name, value in one.items():
      np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_answers_of_a_file_and_an_export(folder, tmp_path, capsys):
  answers = tmp_path / "answers.npz"
  np.savez(answers, train_logits=oracle(sentences(40)))
  command = [
    *("import", answers, "--dataset=text", f"--dataset_path={folder}"),
    f"--out={tmp_path / 'table'}",
  ]
  assert errors.command(table_command(), list(map(str, command))) == 0
  source = "--config.teacher.source=table"
  summary = train.run(
    read(folder, source, f"--config.teacher.path={tmp_path / 'table'}"),
    tmp_path / "run",
  )
  assert summary["teacher_calls"] == 24 and summary["paid_calls"] == 0
  assert len(table.read(tmp_path / "table").ids) == 40
  np.savez(answers, train_logits=oracle(sentences(39)))
  command[-1] = f"--out={tmp_path / 'fewer'}"
  assert errors.command(table_command(), list(map(str, command))) == 2
  assert "split has 40 texts: add ids" in capsys.readouterr().err


def table_command():
  from ckd_jax.table.__main__ import main

  return main


@pytest.mark.slow
def test_matthews_is_reported_as_matthews(folder, tmp_path, capsys):
  judge = "--config.dataset.text.judge=matthews"
  summary = train.run(read(folder, judge), tmp_path / "runs" / "a")
  train.run(read(folder), tmp_path / "runs" / "b")
  assert summary["metric"] == "matthews"
  capsys.readouterr()
  report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'r.csv'}"])
  printed = capsys.readouterr().out
  assert "test matthews (mean ± std" in printed
  assert "test accuracy, % (mean ± std" in printed
  assert f"{summary['test_matthews']:.4g} ± - (1)" in printed
  lines = (tmp_path / "r.csv").read_text().splitlines()
  assert sorted(line.split(",")[3] for line in lines[1:]) == [
    "accuracy",
    "matthews",
  ]
  metrics = (tmp_path / "runs" / "a" / "metrics.jsonl").read_text()
  assert any("val_matthews" in json.loads(x) for x in metrics.splitlines())
