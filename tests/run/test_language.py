"""Runs of language models: answers for every position, from a table."""

import re

import numpy as np
import pytest

import ckd_jax
from ckd_jax import export, methods, table
from ckd_jax.data import select
from ckd_jax.errors import UserError
from ckd_jax.run import logger
from ckd_jax.student import load_student
from ckd_jax.table import __main__ as command
from tests.helpers import language
from tests.helpers.language import LENGTH, WORDS, asked, run

FULL = "teacher.source=callable,teacher.path=tests.helpers.language:full,"
TWO = "teacher.source=callable,teacher.path=tests.helpers.language:two,"
NETWORK = "tests.helpers.language:bigram"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return language.folder(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def paid(data, tmp_path_factory):
  """Tables of all logits and of two tokens, and the first run's summary."""
  path = tmp_path_factory.mktemp("paid")
  asked.clear()
  shared = f"table.path={path}"
  summary = run(path / "run", data, arg=f"{FULL}{shared}/full")
  questions = list(asked)
  run(path / "top", data, arg=f"{TWO}teacher.top_k=2,{shared}/two")
  return path, summary, questions


def refusal(path, data, arg) -> str:
  with pytest.raises(UserError) as raised:
    run(path / "refused", data, arg=arg)
  message = str(raised.value)
  assert len(message.splitlines()) == 1
  return message


def test_a_text_is_one_call_and_its_answer_is_kept_whole(paid):
  path, summary, questions = paid
  assert summary["teacher_calls"] == summary["paid_calls"] == 4
  assert len(set(questions)) == len(questions) == 4
  assert set(questions) <= set(WORDS[:6])
  held = table.read(path / "full")
  assert held.answers.values.shape == (4, LENGTH, 6)
  assert held.info["class_names"][3:] == ["a", "b", "c"]
  assert summary["metric"] == "minus_nats_per_token"
  assert summary["test_minus_nats_per_token"] < 0
  assert summary["test_exact_match"] >= 0 and summary["offset"] is None
  two = table.read(path / "two")
  assert two.answers.values.ids.shape == (4, LENGTH, 2)
  assert two.kind == "log_probs"


@pytest.mark.parametrize(
  "method",
  [
    "ckd",
    "supervised",
    pytest.param("dkd", marks=pytest.mark.slow),
    pytest.param("logit_mse", marks=pytest.mark.slow),
  ],
)
def test_methods_that_take_positions(paid, data, tmp_path, method):
  arg = f"method={method},{FULL}table.path={paid[0]}/full"
  summary = run(tmp_path, data, arg=arg)
  assert summary["paid_calls"] == 0
  assert summary["teacher_calls"] == (0 if method == "supervised" else 4)


def test_a_table_is_compared_with_the_set_of_a_config(paid, data, capsys):
  config = f"names:dataset.name=text,dataset.text.length={LENGTH}"
  check = ["check", f"{paid[0]}/full"]
  command.main(check)
  assert "; or name --config=FILE of the run" in capsys.readouterr().err
  command.main([*check, f"--config={config}", f"--dataset_path={data}"])
  printed = capsys.readouterr()
  assert re.search(r"agreement +[\d.]+ %", printed.out) and not printed.err


def test_the_student_alone(paid, tmp_path):
  student = load_student(paid[0] / "run", network=NETWORK)
  assert student("ab").shape == (LENGTH, 6)
  assert student(["ab", "c"]).shape == (2, LENGTH, 6)
  assert student(np.zeros((0, LENGTH), np.int32)).shape == (0, LENGTH, 6)
  assert student([]).shape == (0, LENGTH, 6)
  with pytest.raises(UserError, match="has no embedding, only logits"):
    student.embed("ab")
  export.run(paid[0] / "run", tmp_path / "out")
  assert len((tmp_path / "out/labels.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize(
  ("arg", "message"),
  [
    (f"method=icd,{FULL}", "these methods work: dkd, kd"),
    (f"method=cc,{FULL}", "ckd with hyper.estimator=all"),
    (f"method=ckd,hyper.estimator=groups,{FULL}", "compares one answer about"),
    (
      f"method=ckd,hyper.offset=fit,hyper.cross_entropy_weight=0.0,{FULL}",
      "set hyper.offset=none",
    ),
    (f"method=dkd,teacher.top_k=2,{FULL}", "that takes them: kd"),
    (f"teacher.top_k=7,teacher.name={NETWORK}", "the vocabulary has 6 tokens"),
    (
      f"student=transformer_tiny,{FULL}",
      "each token (dataset.text.causal): ch",
    ),
    ("teacher.name=transformer_tiny", "(dataset.text.causal): choose lm_tiny"),
    (f"teacher.top_k=2,{FULL}table.path=PAID/full", "has top_k None and this"),
    (f"{FULL}table.path=PAID/two", "has top_k 2 and this run None"),
    (f"teacher.top_k=1,{TWO}table.path=PAID/two", "has top_k 2 and this run 1"),
    (f"{TWO}", r"answered with shape"),
    ("teacher.source=table,teacher.path=PAID/two,method=dkd", "top_k 2"),
  ],
)
def test_what_cannot_work_is_one_line(paid, data, tmp_path, arg, message):
  found = refusal(tmp_path, data, arg.replace("PAID", str(paid[0])))
  assert message in found and "Error" not in found
  assert not list(tmp_path.rglob("*.safetensors"))  # no teacher was trained


def test_validation_without_an_answer_is_refused(tmp_path):
  lost = select(6, budget=6, val_fraction=0.34, seed=0).validation
  rows = ["abcabc\tb" if row in lost else "ab\tc" for row in range(6)]
  for name in ("train", "test"):
    text = "\n".join(["text\ttext2", *rows])
    (tmp_path / f"{name}.tsv").write_text(text + "\n")
  found = refusal(tmp_path, str(tmp_path), FULL)
  assert "none of the 2 answers for validation fits into" in found


def test_another_vocabulary_or_length_is_refused(paid, data, tmp_path):
  arg = f"{FULL}table.path={paid[0]}/full"
  with pytest.raises(UserError, match="has fingerprint"):
    run(tmp_path, data, "--config.dataset.text.vocabulary_size=2", arg=arg)
  with pytest.raises(UserError, match=r"has fingerprint.*in other tokens"):
    run(tmp_path, data, "--config.dataset.text.length=5", arg=arg)
  arg = f"teacher.source=table,teacher.path={paid[0]}/full"
  for key, words in (
    ("vocabulary_size=2", r"full has other tokens \(dataset.text\) than"),
    ("length=5", "the data want them about 5 tokens of each text"),
  ):
    with pytest.raises(UserError, match=words):
      run(tmp_path, data, f"--config.dataset.text.{key}", arg=arg)


def test_runs_on_a_table(paid, data, tmp_path):
  for name in ("full", "two"):
    arg = f"teacher.source=table,teacher.path={paid[0]}/{name}"
    summary = run(tmp_path / name, data, arg=arg)
    assert summary["teacher_calls"] == 4 and summary["paid_calls"] == 0
  # The same answers, the same student.
  assert (
    run(
      tmp_path / "full",
      data,
      arg="teacher.source=table," + (f"teacher.path={paid[0]}/full"),
    )["params_sha256"]
    == paid[1]["params_sha256"]
  )


@pytest.mark.slow
def test_answers_of_a_program(data, tmp_path):
  texts = language.dataset(tmp_path)
  logits = language.full(texts.train.questions)
  config = ckd_jax.get_config(
    "names",
    **{
      "dataset.text.length": LENGTH,
      "budget": 6,
      "steps": 2,
      "batch_size": 4,
      "val_fraction": 0.0,
      "student": NETWORK,
    },
  )
  result = ckd_jax.distill(config, data=texts, answers=logits)
  assert result.summary["teacher_calls"] == 6
  with pytest.raises(UserError, match="answers about 5 tokens of each text"):
    ckd_jax.distill(config, data=texts, answers=logits[:, :5])
  with pytest.raises(UserError, match="answers about whole rows"):
    ckd_jax.distill(config, data=texts, answers=logits[:, 0])


def test_the_methods_that_take_positions_are_listed():
  logits = frozenset({"logits"})
  found = methods.working_with(logits, "texts", answers="positions")
  assert found == ["dkd", "kd", "logit_mse", "supervised"]
  found = methods.working_with(logits, "texts", answers="positions", top=True)
  assert found == ["kd", "supervised"]


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
  """A trained language model."""
  path = tmp_path_factory.mktemp("teacher")
  run(path, data, arg="method=supervised,teacher.source=none")
  return f"teacher.source=checkpoint,teacher.path={path},teacher.name={NETWORK}"


@pytest.mark.slow
def test_texts_are_written_and_answered_in_the_step(data, teacher, tmp_path):
  arg = f"method=on_policy,hyper.top_k=2,log_every=1,{teacher}"
  summary = run(tmp_path / "one", data, arg=arg)
  metrics = logger.read_metrics(tmp_path / "one/metrics.jsonl")
  asked = [line["asked"] for line in metrics if "asked" in line]
  # 4 steps of 4 texts are scored, and asked about while they are written.
  assert summary["live_calls"] == 4 * 4 + sum(asked) and min(asked) > 0
  assert summary["teacher_calls"] == 0
  again = run(tmp_path / "two", data, arg=arg)
  assert again["params_sha256"] == summary["params_sha256"]
  with pytest.raises(UserError, match=r"set teacher\.live=True"):
    run(tmp_path / "three", data, arg=f"{arg},teacher.live=false")


@pytest.mark.slow
def test_a_teacher_of_longer_texts(data, teacher, tmp_path):
  shorter = "--config.dataset.text.length=5"
  summary = run(tmp_path, data, shorter, arg=f"method=kd,{teacher}")
  assert summary["teacher_calls"] == 4
