"""Retrieval sets: what is read, how it is judged, what is refused."""

import json
import lzma

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from ckd_jax import data
from ckd_jax.data import RetrievalOptions, TextOptions
from ckd_jax.errors import UserError
from tests.helpers.retrieval import DIM, QUERIES, TEXTS, TITLES, folder, vectors


def load(path, file, length=3, **options):
  return data.load(
    "retrieval",
    path=path,
    text=TextOptions(length=length),
    index=RetrievalOptions(file, **options),
  )


def error(path, file) -> str:
  with pytest.raises(UserError) as raised:
    load(path, file)
  message = str(raised.value)
  assert len(message.splitlines()) == 1
  return message


def test_documents_are_classes_and_titles_are_queries(tmp_path):
  found = load(*folder(tmp_path), temperature=0.1, cosine=False, sampled=5)
  assert found.class_names == tuple(TITLES) and found.num_classes == 6
  assert (
    found.answer_names == ("0", "1", "2", "3") and found.answer_width == DIM
  )
  assert found.index[1:] == (0.1, False, 5, False)
  np.testing.assert_array_equal(found.anchors, vectors(TEXTS))
  assert found.train.labels.tolist() == [0, 1, 2, 3]
  assert found.train.questions.tolist() == list(TITLES.values())[:4]
  assert found.train.ids.tolist() == [
    "title_a",
    "title_b",
    "title_c",
    "title_d",
  ]
  # The first relevant document of each; 7 and 9 have none.
  assert found.test.ids.tolist() == ["query_3", "query_8"]
  assert found.test.labels.tolist() == [1, 3]
  np.testing.assert_array_equal(found.vectors.train, vectors(TITLES)[:4])
  np.testing.assert_array_equal(found.vectors.test, vectors(QUERIES)[[0, 2]])
  assert found.notes == (
    "1 of 6 documents are empty: f",
    "1 of 6 documents have no title, so no training query: e",
    "2 of 4 queries have no relevant document and are left out",
    "1 of 2 test texts are longer than 3 tokens and are cut"
    " (dataset.text.length)",
  )
  words = found.view.vocabulary
  assert 1 not in words.ids("nameless about lift")  # of documents alone
  assert words.ids("cheese") == [1]  # of a query alone


def test_documents_that_a_student_reads(tmp_path):
  path, file = folder(tmp_path)
  assert load(path, file).documents is None
  found = load(path, file, documents="student")
  split, words = found.documents, found.view.vocabulary
  assert split.questions.tolist() == [f"{TITLES[x]} {TEXTS[x]}" for x in TITLES]
  assert split.ids.tolist() == [f"document_{x}" for x in TITLES]
  assert split.labels.tolist() == list(range(6))  # as the index has them
  assert split.inputs[0].tolist() == words.ids("wing flutter about")
  assert split.inputs[5].tolist() == [0, 0, 0]  # empty, which is told
  assert found.notes[0] == "1 of 6 documents are empty: f"
  assert found.notes[-1] == (
    "4 of 6 documents are longer than 3 tokens and are cut"
    " (dataset.text.length)"
  )
  (tmp_path / "documents.jsonl").write_text(
    "".join(
      json.dumps({"id": id_, "title": "a", "text": "b\0" * (id_ == "c")}) + "\n"
      for id_ in TITLES
    )
  )
  with pytest.raises(UserError, match="document 'c' has a NUL character"):
    load(path, file, documents="student")


def test_a_hand_made_judgement(tmp_path):
  found = load(*folder(tmp_path))
  # Query 3: b then a are relevant, at places 3 and 1. Query 8: d at place 2.
  scores = np.array([[9.0, 0, 7, 1, 0, 0], [0, 9, 0, 8, 0, 0]])
  scores[0, 1], scores[0, 2] = 6, 7
  figures = found.judge(scores, found.test)
  ideal = 1 + 1 / np.log2(3)
  assert figures == {
    "ndcg@10": pytest.approx(((1 + 0.5) / ideal + 1 / np.log2(3)) / 2),
    "mrr@10": pytest.approx((1 + 0.5) / 2),
    "recall@100": 1.0,
  }
  right = found.judge(np.eye(6)[:4], found.train)  # by its own document
  assert right["ndcg@10"] == right["mrr@10"] == 1


def test_vectors_of_queries_may_be_absent(tmp_path):
  found = load(*folder(tmp_path, vectors={"titles": None, "queries": None}))
  assert found.vectors.train is None and found.vectors.test is None


QREL = "query\tdocument\tgrade\n"


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"qrels": QREL + "3\tz\t1\n"},
      "line 2 has the document 'z', which is not",
    ),
    ({"qrels": QREL + "4\ta\t1\n"}, "line 2 has the query '4', which is not"),
    ({"qrels": "query\tgrade\n3\t1\n"}, "line 2 has the document None"),
    ({"qrels": QREL + "3\ta\tgood\n"}, "line 2 has the grade 'good'"),
    ({"qrels": QREL + "3\ta\tnan\n"}, "line 2 has the grade 'nan'"),
    ({"qrels": QREL + "3\ta\t1\n3\ta\t2\n"}, "'a' again, with another grade"),
    ({"qrels": QREL + "3\ta\t-1\n"}, "no query with a relevant document"),
    ({"qrels": None}, "has no qrels: a retrieval set is a folder with"),
    ({"documents": '{"id": "a"}\n{"id": "a"}\n'}, "has the id 'a' again"),
    ({"documents": '{"title": "a"}\n'}, "line 1 has no 'id'"),
    ({"queries": '{"id": 3}\n'}, "line 1 has no 'text'"),
    ({"vectors": {"titles": np.ones((6, 3), "f4")}}, "all of one encoder"),
    ({"vectors": {"queries": np.ones((3, DIM), "f4")}}, "not float (4, 4)"),
    ({"vectors": {"documents": np.ones((5, DIM), "f4")}}, "not float (6, 4)"),
    (
      {"vectors": {"documents": None}},
      "has titles, queries: it needs documents",
    ),
    ({"vectors": {"documents": np.ones((6, 4), int)}}, "documents are int64"),
    ({"vectors": {"documents": np.full((6, 4), np.nan)}}, "are not finite"),
    ({"vectors": {"documents": np.array([{}] * 6)}}, "documents are object"),
    ({"vectors": {"documents": np.float32(1)}}, "of shape (), not float (6,)"),
  ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, words):
  assert words in error(*folder(tmp_path, **changes))


def test_a_file_without_vectors_is_refused(tmp_path):
  path, _ = folder(tmp_path)
  other, lone = tmp_path / "other.npz", tmp_path / "lone.npy"
  np.save(lone, np.ones((6, DIM)))
  for write in (
    lambda: None,
    lambda: other.write_bytes(b"PK no archive"),
    lambda: other.write_bytes(lone.read_bytes()),
  ):
    write()
    assert "give an .npz with the encoder's vectors" in error(path, str(other))


def test_a_retrieval_set_needs_its_sections(tmp_path):
  path, file = folder(tmp_path)
  text, index = TextOptions(), RetrievalOptions(file)
  for wrong in (
    {"name": "retrieval", "path": path, "text": text},
    {"name": "retrieval", "path": path, "index": index},
    {"name": "retrieval", "text": text, "index": index},
    {"name": "digits", "text": text, "index": index},
  ):
    with pytest.raises(UserError, match="begin with configs/cranfield"):
      data.load(**wrong)


def test_cranfield_has_the_recorded_figures(shared):
  """The encoder's and TF-IDF's, as the folder's README states them."""
  folder = shared / "text"
  found = load(
    str(folder / "cranfield"), str(folder / "teachers/cranfield_e5.npz"), 24
  )
  assert len(found.class_names) == 1400 and len(found.train.labels) == 1398
  assert len(found.test.labels) == 225
  assert found.notes[0] == "2 of 1,400 documents are empty: 471, 995"
  own = np.float32(found.vectors.test) @ found.anchors.T
  figures = found.judge(own, found.test)
  assert [round(x, 3) for x in figures.values()] == [0.383, 0.526, 0.731]
  titles = np.float32(found.vectors.train) @ found.anchors.T
  assert round(np.mean(titles.argmax(1) == found.train.labels), 2) == 0.87
  with lzma.open(
    folder / "cranfield/documents.jsonl.xz", "rt", encoding="utf-8"
  ) as lines:
    rows = [json.loads(line) for line in lines]
  words = TfidfVectorizer(sublinear_tf=True, stop_words="english")
  weights = words.fit_transform(f"{x['title']} {x['text']}" for x in rows)
  scores = (words.transform(found.test.questions) @ weights.T).toarray()
  figures = found.judge(scores, found.test)
  assert [round(x, 3) for x in figures.values()] == [0.356, 0.503, 0.714]
