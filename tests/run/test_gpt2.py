"""A pretrained language model as the teacher of a run, live and for a table."""

import pytest

from ckd_jax import config as configuration
from ckd_jax import table
from ckd_jax.errors import UserError
from ckd_jax.run import train
from tests.helpers import gpt2

pytest.importorskip("tokenizers")
QUICK = (
  "batch_size=4,steps=2,eval_every=2,checkpoint_every=2,budget=6,"
  "val_fraction=0.34,student=tests.helpers.language:bigram,"
  "teacher.source=gpt2,"
)
WORDS = ("ab", "abc", "cab", "bcaab", "caae", "bd", "bb", "aabbcc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("texts")
  (path / "train.txt").write_text("\n".join(WORDS[:6]) + "\n")
  (path / "test.txt").write_text("\n".join(WORDS[6:]) + "\n")
  gpt2.write(path / "gpt2")
  return path


def run(workdir, folder, arg, rows="lines"):
  settled = {
    "dataset.name": "text",
    "dataset.path": folder,
    "dataset.text.length": 6,
    "dataset.text.rows": rows,
    "dataset.text.tokens": folder / "gpt2/tokenizer.json",
    "teacher.path": folder / "gpt2",
  }
  flags = [f"--config.{key}={value}" for key, value in settled.items()]
  flags = [f"--config=names:{QUICK}{arg}", *flags]
  return train.run(configuration.from_flags(flags)[0], workdir)


@pytest.mark.slow
def test_it_writes_and_answers_in_the_step(folder, tmp_path):
  summary = run(tmp_path, folder, "method=on_policy,hyper.top_k=2")
  assert summary["teacher"].startswith("gpt2:")
  assert summary["live_calls"] > 2 * 4 and summary["teacher_calls"] == 0
  assert summary["teacher_test_minus_nats_per_token"] < 0


@pytest.mark.slow
def test_its_answers_are_a_table(folder, tmp_path):
  arg = "method=kd,budget=4,batch_size=3,teacher.top_k=3"
  arg += f",table.path={tmp_path}/table"
  summary = run(tmp_path / "run", folder, arg, rows="windows")
  held = table.read(tmp_path / "table")
  assert summary["teacher_calls"] == len(held.ids) > 0
  assert held.answers.values.ids.shape == (len(held.ids), 6, 3)
  assert len(held.info["class_names"]) == 7


@pytest.mark.slow
def test_its_last_blocks_adapt(folder, tmp_path):
  summary = run(tmp_path, folder, "method=okd")
  assert summary["live_calls"] == 2 * 4


def test_only_language_models_have_it(folder, tmp_path):
  with pytest.raises(UserError, match=r"needs dataset\.text\.causal=True"):
    run(tmp_path, folder, "method=kd,dataset.text.causal=false")
