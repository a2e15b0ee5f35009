"""Runs on a retrieval set, from the config to the student's file."""

import json

import numpy as np
import pytest

import ckd_jax
from ckd_jax import config as configuration
from ckd_jax import student
from ckd_jax.errors import UserError
from ckd_jax.run import logger, train
from tests.helpers import retrieval
from tests.helpers.paths import ROOT
from tests.helpers.retrieval import TEXTS, folder, vectors

QUICK = "budget=4,val_fraction=0.25,batch_size=3,steps=4,eval_every=2"
asked = []


def encode(texts):
  """A service that notes what it was asked."""
  asked.extend(texts)
  return retrieval.encode(texts)


def flags(set_folder, *more, method="embed_distill"):
  path, file = set_folder
  return [
    f"--config={ROOT}/configs/cranfield.py:method={method},{QUICK}",
    f"--config.dataset.path={path}",
    f"--config.dataset.retrieval.embeddings={file}",
    *more,
  ]


def run(workdir, set_folder, *more, **options):
  config, _ = configuration.from_flags(flags(set_folder, *more, **options))
  return train.run(config, workdir)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
  monkeypatch.setattr(logger, "curves", lambda *arguments: None)


@pytest.mark.slow
def test_a_run_ends_with_a_student_that_searches(tmp_path):
  files = folder(tmp_path)
  summary = run(tmp_path / "run", files, "--config.checkpoint_every=2")
  assert summary["metric"] == "ndcg@10"
  assert {"test_mrr@10", "test_recall@100"} <= summary.keys()
  assert summary["teacher"].startswith("file:vectors.npz:")
  assert summary["teacher_calls"] == 3 and summary["paid_calls"] == 0
  # The encoder's own figure, by hand: its vectors of queries and documents.
  scores = vectors(retrieval.QUERIES)[[0, 2]] @ vectors(TEXTS).T
  places = (-scores).argsort(1).argsort(1)
  gain = 1 / np.log2(places + 2)
  own = (gain[0, [0, 1]].sum() / (1 + 1 / np.log2(3)) + gain[1, 3]) / 2
  assert summary["teacher_test_ndcg@10"] == pytest.approx(own)

  found = ckd_jax.load_student(tmp_path / "run")
  assert found.classes == tuple(TEXTS)
  documents = found.state["documents"]
  assert documents.tobytes() == vectors(TEXTS).tobytes()
  answer = found(["wing lift", "plate"])
  assert answer.shape == (2, 6)
  # The student's vectors, from their products over the temperature of 0.1.
  own = np.linalg.lstsq(documents, 0.1 * answer.T, rcond=None)[0]
  np.testing.assert_allclose(np.linalg.norm(own, axis=0), 1, rtol=1e-3)
  logits = [found(text) for text in ("lift of a wing", "plate")]
  dataset = train.load_dataset(configuration.from_flags(flags(files))[0])
  judged = dataset.judge(np.stack(logits), dataset.test)
  assert judged["ndcg@10"] == pytest.approx(summary["test_ndcg@10"])


@pytest.mark.slow
def test_a_student_without_its_documents_is_refused(tmp_path):
  run(tmp_path / "run", folder(tmp_path), method="supervised")
  file = tmp_path / "run" / "student.safetensors"
  params, _, facts = student.load(file)
  for state, words in (
    ({}, "lacks its documents"),
    ({"documents": np.ones((6, 3), "f4")}, "are not those of averaging"),
    ({"documents": np.ones((5, 4), "f4")}, "5 classes, not 6"),
  ):
    student.save(tmp_path / "other.safetensors", params, state, facts)
    with pytest.raises(UserError, match=words):
      ckd_jax.load_student(tmp_path / "other.safetensors")
  for key, value in (("temperature", "0"), ("temperature", "Infinity")):
    student.save(
      tmp_path / "other.safetensors", params, {}, {**facts, key: value}
    )
    with pytest.raises(UserError, match="make no sense"):
      ckd_jax.load_student(tmp_path / "other.safetensors")


@pytest.mark.slow
def test_a_service_is_asked_about_titles_within_the_budget(tmp_path):
  asked.clear()
  summary = run(
    tmp_path / "run",
    folder(tmp_path, vectors={"titles": None, "queries": None}),
    "--config.teacher.source=callable",
    f"--config.teacher.path={__name__}:encode",
    "--config.dataset.retrieval.sampled=4",
  )
  assert summary["paid_calls"] == 3 and len(asked) == 3
  assert set(asked) < set(retrieval.TITLES.values())
  assert summary["teacher_test_ndcg@10"] is None
  info = json.loads((tmp_path / "run/table/table.json").read_text())
  assert info["class_names"] == ["0", "1", "2", "3"]


def wrong(texts):
  return np.ones((len(texts), 3))


@pytest.mark.parametrize(
  ("more", "words"),
  [
    (["--config.teacher.source=train"], "is answered by the encoder of its"),
    (["--config.teacher.kind=probs"], "set teacher.kind=logits"),
    (["--config.batch_norm=device"], "set batch_norm=global"),
    (["--config.dataset.retrieval.temperature=0.0"], "a number above 0"),
    (["--config.dataset.retrieval.embeddings="], "give an .npz with"),
    (["--config.dataset.retrieval.sampled=2"], "2 sampled documents: give 3"),
    (["--config.student=cnn"], "cnn sees images, not texts"),
    (
      [
        "--config.teacher.source=callable",
        f"--config.teacher.path={__name__}:wrong",
      ],
      "3",
    ),
  ],
)
def test_what_cannot_be_is_one_line(tmp_path, more, words):
  with pytest.raises(UserError) as raised:
    run(tmp_path / "run", folder(tmp_path), *more)
  (line,) = str(raised.value).splitlines()
  assert words in line


def test_vectors_of_titles_are_needed_somewhere(tmp_path):
  files = folder(tmp_path, vectors={"titles": None})
  with pytest.raises(UserError, match="have no titles: put them into"):
    run(tmp_path / "run", files)
  with pytest.raises(UserError, match="would favour some documents"):
    run(tmp_path / "run", files, "--config.hyper.offset=fit", method="ckd")
