"""Runs on a retrieval set, from the config to the student's file."""

import json

import numpy as np
import pytest

import ckd_jax
from ckd_jax import config as configuration
from ckd_jax import student
from ckd_jax.errors import UserError
from ckd_jax.run import logger, together, train
from tests.helpers import retrieval
from tests.helpers.paths import ROOT
from tests.helpers.retrieval import TEXTS, TITLES, folder, vectors
from tests.helpers.runs import interrupt_after

QUICK = "budget=4,val_fraction=0.25,batch_size=3,steps=4,eval_every=2"
BOTH = "--config.dataset.retrieval.documents=student"
asked = []


def encode(texts):
  """A service that notes what it was asked."""
  asked.extend(texts)
  return retrieval.encode(texts)


def scored(texts) -> np.ndarray:
  """A cross encoder: scores of all documents but those of wings."""
  asked.extend(texts)
  scores = 5 * retrieval.encode(texts) @ vectors(TEXTS).T
  return np.where(["wing" in x for x in TEXTS.values()], -np.inf, scores)


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
def test_a_symmetric_student_searches_by_its_own_vectors(tmp_path):
  files = folder(tmp_path)
  summary = run(tmp_path / "run", files, BOTH)
  # Titles are asked about; of documents the vectors came with the file.
  assert summary["teacher_calls"] == 3 and summary["paid_calls"] == 0
  found = ckd_jax.load_student(tmp_path / "run")
  own = found.embed([f"{TITLES[x]} {TEXTS[x]}" for x in TITLES])
  assert own.shape == (6, 4)
  np.testing.assert_allclose(found.state["documents"], own, atol=1e-6)
  assert np.abs(own - vectors(TEXTS)).max() > 0.1
  queries = list(retrieval.QUERIES.values())
  np.testing.assert_allclose(
    found(queries), found.embed(queries) @ own.T / 0.1, atol=1e-4
  )
  dataset = train.load_dataset(configuration.from_flags(flags(files, BOTH))[0])
  judged = dataset.judge(found(list(dataset.test.questions)), dataset.test)
  assert {f"test_{x}": y for x, y in judged.items()} == {
    f"test_{x}": pytest.approx(summary[f"test_{x}"]) for x in judged
  }


@pytest.mark.slow
def test_a_service_is_not_asked_about_documents(tmp_path):
  asked.clear()
  service = [
    "--config.teacher.source=callable",
    f"--config.teacher.path={__name__}:encode",
  ]
  nothing = {"titles": None, "queries": None}
  summary = run(
    tmp_path / "run", folder(tmp_path, vectors=nothing), BOTH, *service
  )
  assert summary["paid_calls"] == len(asked) == 3
  assert set(asked) < set(retrieval.TITLES.values())


@pytest.mark.slow
def test_a_symmetric_run_resumes_bit_for_bit(tmp_path, monkeypatch):
  files, often = folder(tmp_path), "--config.checkpoint_every=1"
  whole = run(tmp_path / "whole", files, BOTH, often)
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 3)
    run(tmp_path / "parts", files, BOTH, often)
  parts = run(tmp_path / "parts", files, BOTH, often)
  assert parts["params_sha256"] == whole["params_sha256"]
  metrics = [tmp_path / name / "metrics.jsonl" for name in ("whole", "parts")]
  assert metrics[0].read_bytes() == metrics[1].read_bytes()


@pytest.mark.slow
def test_other_documents_are_not_resumed(tmp_path, monkeypatch):
  files, often = folder(tmp_path), "--config.checkpoint_every=1"
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 3)
    run(tmp_path / "run", files, BOTH, often)
  file = tmp_path / "documents.jsonl"
  file.write_text(
    file.read_text().replace("about wing lift", "about lift wing")
  )
  with pytest.raises(UserError, match="begun with other documents"):
    run(tmp_path / "run", files, BOTH, often)


@pytest.mark.slow
def test_a_bad_step_names_its_queries(tmp_path):
  rate = "--config.optimizer.learning_rate=1e38"
  with pytest.raises(logger.Diverged, match=r"title_[abcd].*lower optimizer"):
    run(tmp_path / "run", folder(tmp_path), BOTH, rate)


@pytest.mark.slow
def test_symmetric_students_in_one_program(tmp_path):
  """Each is judged by its own documents."""
  files, seeds = folder(tmp_path), (1, 2)
  configs = {}
  for seed in seeds:
    typed = flags(files, BOTH, f"--config.seed={seed}")
    configs[tmp_path / f"crew{seed}"], _ = configuration.from_flags(typed)
  (runs,) = together.prepare_all(configs)
  for path, found in together.train_together(runs):
    alone = run(
      tmp_path / "alone" / path.name,
      files,
      BOTH,
      f"--config.seed={path.name[-1]}",
    )
    for key in ("val_ndcg@10", "test_ndcg@10", "test_mrr@10"):
      assert found[key] == pytest.approx(alone[key]), key


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


PAIRS = "--config.dataset.retrieval.answers=scores"


def pair_files(path) -> list[str]:
  """Scores of titles by documents and pooled vectors; and three of them."""
  titles = list(TITLES.values())[:4]
  embedding = np.random.default_rng(0).normal(size=(4, 6)).astype("f4")
  asked.clear()
  full, kept = scored(titles).astype("f4"), path / "kept.npz"
  np.savez(path / "full.npz", logits=full, embedding=embedding)
  ids = np.argsort(-full, axis=1)[:, :3]
  log_probs = np.take_along_axis(full, ids, 1)
  log_probs -= np.log(np.exp(log_probs).sum(1, keepdims=True))
  np.savez(
    kept, top_ids=ids, top_log_probs=log_probs, top_rest=np.zeros(4, "f4")
  )
  return [f"--config.teacher.path={x}" for x in (path / "full.npz", kept)]


@pytest.mark.slow
@pytest.mark.parametrize("both", [(), (BOTH,)])
def test_a_cross_encoder_teaches_by_scores_of_pairs(tmp_path, both):
  files = folder(tmp_path, vectors={"titles": None})
  full, _ = pair_files(tmp_path)
  summary = run(tmp_path / "run", files, PAIRS, full, *both)
  # Of six documents two are about wings; three titles are to learn from.
  assert summary["teacher_calls"] == 3 and summary["teacher_pairs"] == 3 * 4
  assert summary["teacher"].startswith("file:full.npz:")
  assert summary["teacher_test_ndcg@10"] is None
  found = ckd_jax.load_student(tmp_path / "run")
  assert found.embed("wing lift").shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("both", [(), (BOTH,)])
def test_a_cross_encoder_s_best_documents_and_a_service(tmp_path, both):
  files = folder(tmp_path)
  _, kept = pair_files(tmp_path)
  alone = ["--config.hyper.weight=0.0", PAIRS, *both]
  summary = run(tmp_path / "kept", files, kept, *alone)
  assert summary["teacher_calls"] == 3 and summary["teacher_pairs"] == 9
  service = [
    "--config.teacher.source=callable",
    f"--config.teacher.path={__name__}:scored",
  ]
  asked.clear()
  summary = run(tmp_path / "service", files, *service, *alone)
  assert summary["paid_calls"] == len(asked) == 3
  assert summary["teacher_pairs"] == 3 * 4
  info = json.loads((tmp_path / "service/table/table.json").read_text())
  assert info["class_names"] == list(TITLES)


@pytest.mark.slow
def test_scores_that_do_not_fit_are_one_line(tmp_path):
  files, given = folder(tmp_path), pair_files(tmp_path)
  odd = tmp_path / "odd.npz"
  scores = np.zeros((4, 6), "f4")
  scores[:, 1] = 1
  np.savez(odd, logits=scores, embedding=np.ones((4, 5), "f4"))
  ids = np.tile(np.array([0, 9], np.int32), (4, 1))
  strange = tmp_path / "strange.npz"
  np.savez(strange, top_ids=ids, top_log_probs=np.log(np.full((4, 2), 0.5)))
  for more, words in (
    ((), "needs teacher.path"),
    ((given[1],), "needs the teacher's embedding"),
    ((f"--config.teacher.path={odd}",), "side by side, equally long"),
    ((f"--config.teacher.path={strange}",), "a document id is 9"),
    ((given[0], "logit_mse"), "rule classes out (-inf)"),
    ((given[1], "logit_mse"), "rule classes out (-inf)"),
    (("--config.dataset.retrieval.answers=pairs",), "unknown dataset.retr"),
  ):
    typed = [x for x in more if x != "logit_mse"]
    method = "logit_mse" if typed != [*more] else "embed_distill"
    with pytest.raises(UserError) as raised:
      run(tmp_path / "run", files, PAIRS, *typed, method=method)
    (line,) = str(raised.value).splitlines()
    assert words in line


def wrong(texts):
  return np.ones((len(texts), 3))


@pytest.mark.parametrize(
  ("more", "words"),
  [
    (["--config.teacher.source=train"], "is answered by the encoder of its"),
    (["--config.teacher.kind=probs"], "set teacher.kind=logits"),
    (["--config.batch_norm=device"], "set batch_norm=global"),
    (["--config.dataset.retrieval.temperature=0.0"], "a number above 0"),
    (["--config.dataset.retrieval.embeddings="], "names no file: give"),
    (["--config.dataset.retrieval.sampled=2"], "names up to 3 documents"),
    (["--config.dataset.retrieval.sampled=7"], "7, and there are 6 documents"),
    (["--config.student=cnn"], "cnn sees images, not texts"),
    (
      [BOTH, "--config.dataset.retrieval.sampled=4"],
      "set dataset.retrieval.sampled=0, or",
    ),
    ([BOTH, "--config.dataset.placement=stream"], "lie on the device: set"),
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
  peers = ["--config.teacher.source=none", "--config.peers=('averaging',)"]
  with pytest.raises(UserError, match=r"'dml' compares logits.*one of cc, ckd"):
    run(tmp_path / "run", files, *peers, method="dml")
  groups = "--config.hyper.estimator=groups"
  with pytest.raises(UserError, match=r"ckd.*compares groups of rows"):
    run(tmp_path / "run", folder(tmp_path), BOTH, groups, method="ckd")
