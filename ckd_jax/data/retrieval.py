"""A retrieval set: documents are classes, a query's label is a document.

A folder has documents.jsonl (id, title, text), queries.jsonl (id, text) and
qrels.tsv (query, document, grade); each also as .xz or .gz. Training queries
are the documents' titles, each a query for its own document. Queries are judged
by all their documents of a grade above 0.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ckd_jax.data.judges import ranking
from ckd_jax.data.lazy import memory
from ckd_jax.data.members import Member, read_members
from ckd_jax.data.split import Split, make_split
from ckd_jax.data.text import TextOptions, TextSet, assemble, check_characters
from ckd_jax.data.text_files import Texts, find, read_rows
from ckd_jax.data.token_view import TokenView
from ckd_jax.errors import UserError

_FILES = ("documents", "qrels", "queries")


class RetrievalOptions(NamedTuple):
  """The index: the block `dataset.retrieval` of a config.

  Attributes:
    embeddings: an .npz of the encoder's vectors: `documents` [documents, dim],
      in the order of the file; and, where they are known, `titles`
      [documents, dim] and `queries` [queries, dim].
    temperature: by which products of vectors are divided, to be logits.
    cosine: whether vectors are brought to length 1 before.
    sampled: documents that a training step compares; 0: all of them.
    documents: whose vectors of documents are searched: the "teacher"'s, as they
      are, or the "student"'s, which reads queries and documents alike.
    answers: what a teacher says of a query: "vectors", or "scores" of documents
      and perhaps vectors of pairs, those of a cross encoder.
  """

  embeddings: str
  temperature: float = 0.1
  cosine: bool = True
  sampled: int = 0
  documents: str = "teacher"
  answers: str = "vectors"


class Vectors(NamedTuple):
  """What a file holds of the encoder's answers.

  Attributes:
    name: of the file, with its digest.
    train: float[n, dim], of the training queries; None: not in the file.
    test: of the test queries, the same.
  """

  name: str
  train: np.ndarray | None
  test: np.ndarray | None


class RetrievalSet(NamedTuple):
  """A retrieval set, but for its name.

  Attributes:
    texts: titles, labelled with their document, and queries, with the first
      relevant one; classes are documents.
    anchors: float32[documents, dim], the encoder's vectors.
    vectors: its answers about queries.
    documents: titles and texts, labelled with themselves, for a student that
      reads them; None for one that does not.
  """

  texts: TextSet
  anchors: np.ndarray
  vectors: Vectors
  documents: Split | None


class _Documents(NamedTuple):
  ids: list[str]
  titles: list[str]
  texts: list[str]


def read(
  path: str, text: TextOptions, options: RetrievalOptions
) -> RetrievalSet:
  """Reads a folder, and the encoder's vectors.

  Args:
    path: of the folder.
    text: how texts become tokens; words are those of documents and titles.
    options: the index.

  Raises:
    UserError: a file is missing or damaged, names an unknown document or query,
      or vectors do not fit.
  """
  files = find(path)
  if lacking := [name for name in _FILES if name not in files]:
    raise UserError(
      f"{path} has no {', no '.join(lacking)}: a retrieval set is a folder with"
      " documents.jsonl, queries.jsonl and qrels.tsv (also .xz or .gz)"
    )
  documents, notes = _documents(files["documents"])
  queries = _texts(files["queries"], ("text",))
  grades = _grades(files["qrels"], queries, documents.ids)
  asked = [row for row, title in enumerate(documents.titles) if title.strip()]
  relevant = {
    query: next((d for d, grade in found.items() if grade > 0), None)
    for query, found in grades.items()
  }
  judged = [row for row, id_ in enumerate(queries) if relevant.get(id_)]
  if not asked or not judged:
    lack = "title" if not asked else "query with a relevant document"
    raise UserError(f"{path} has no {lack}: there is nothing to learn or judge")
  ids = list(queries)
  if len(judged) < len(ids):
    notes.append(
      f"{len(ids) - len(judged):,} of {len(ids):,} queries have no relevant"
      " document and are left out"
    )
  made = assemble(
    Texts(
      [documents.titles[row] for row in asked],
      [documents.ids[row] for row in asked],
      str(files["documents"]),
      [f"title_{documents.ids[row]}" for row in asked],
    ),
    Texts(
      [queries[ids[row]]["text"].replace("\t", " ") for row in judged],
      [str(relevant[ids[row]]) for row in judged],
      str(files["queries"]),
      [f"query_{ids[row]}" for row in judged],
    ),
    text,
    tuple(documents.ids),
    corpus=documents.texts,
  )
  anchors, vectors = _vectors(options, documents, queries)
  judge = ranking(
    {f"query_{query}": found for query, found in grades.items()}, documents.ids
  )
  split, more = None, []
  if options.documents == "student":
    split, more = _split(documents, made.view, files)
  return RetrievalSet(
    made._replace(judge=judge, notes=(*notes, *made.notes, *more)),
    anchors,
    vectors._replace(
      train=None if vectors.train is None else vectors.train[asked],
      test=None if vectors.test is None else vectors.test[judged],
    ),
    split,
  )


def _split(
  documents: _Documents, view: TokenView, files: Mapping[str, Any]
) -> tuple[Split, list[str]]:
  """The documents as a student reads them, and what to tell of it."""
  texts = [text.replace("\t", " ") for text in documents.texts]
  for id_, text in zip(documents.ids, texts, strict=True):
    check_characters(text, f"{files['documents']}: document {id_!r}")
  tokens, cut = view.vocabulary.encode(texts, view.length)
  ids = [f"document_{id_}" for id_ in documents.ids]
  split = make_split(tokens, np.arange(len(ids)), ids, texts)
  if not cut:
    return split, []
  return split, [
    f"{cut:,} of {len(ids):,} documents are longer than {view.length} tokens"
    " and are cut (dataset.text.length)"
  ]


def _documents(file: Any) -> tuple[_Documents, list[str]]:
  """The documents, and what to tell of them."""
  rows = _texts(file, ())
  parts = [
    [str(row.get(key) or "") for row in rows.values()]
    for key in ("title", "text")
  ]
  texts = [f"{title} {text}" for title, text in zip(*parts, strict=True)]
  said = [bool(text.strip()) for text in texts]
  untitled = [
    one and not title.strip() for one, title in zip(said, parts[0], strict=True)
  ]
  notes = [
    f"{len(found):,} of {len(rows):,} documents {lack}: {', '.join(found[:5])}"
    for lack, found in (
      ("are empty", [x for x, one in zip(rows, said, strict=True) if not one]),
      (
        "have no title, so no training query",
        [x for x, one in zip(rows, untitled, strict=True) if one],
      ),
    )
    if found
  ]
  titles = [title.replace("\t", " ") for title in parts[0]]
  return _Documents(list(rows), titles, texts), notes


def _texts(file: Any, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
  """The rows of a file by their id."""
  found: dict[str, dict[str, Any]] = {}
  for number, row in read_rows(file):
    for key in ("id", *wanted):
      if not isinstance(row.get(key), str | int) or row[key] == "":
        raise UserError(f"{file}: line {number} has no {key!r}")
    id_ = str(row["id"])
    if id_ in found:
      raise UserError(f"{file}: line {number} has the id {id_!r} again")
    found[id_] = {**row, **{key: str(row[key]) for key in wanted}}
  return found


def _grades(
  file: Any, queries: Mapping[str, Any], documents: Sequence[str]
) -> dict[str, dict[str, float]]:
  """{query: {document: grade}}."""
  known = {"query": queries.keys(), "document": set(documents)}
  grades: dict[str, dict[str, float]] = {}
  for number, row in read_rows(file):
    for key, ids in known.items():
      if str(row.get(key)) not in ids:
        raise UserError(
          f"{file}: line {number} has the {key} {row.get(key)!r}, which is not"
          f" there: qrels have the columns query, document and grade"
        )
    try:
      grade = float(row["grade"])
    except (KeyError, TypeError, ValueError):
      grade = np.nan
    if not np.isfinite(grade):
      raise UserError(
        f"{file}: line {number} has the grade {row.get('grade')!r}: give a"
        " number, above 0 for what is relevant"
      )
    found = grades.setdefault(str(row["query"]), {})
    if found.setdefault(str(row["document"]), grade) != grade:
      raise UserError(
        f"{file}: line {number} has the query {row['query']!r} and the document"
        f" {row['document']!r} again, with another grade"
      )
  return grades


def _check(options: RetrievalOptions, documents: int) -> None:
  if not options.embeddings:
    raise UserError(
      "dataset.retrieval.embeddings names no file: give an .npz with the"
      " encoder's vectors of the documents"
    )
  if options.sampled > documents:
    raise UserError(
      f"dataset.retrieval.sampled is {options.sampled}, and there are"
      f" {documents} documents: give fewer, or 0 for all of them"
    )


def _vectors(
  options: RetrievalOptions, documents: _Documents, queries: Mapping[str, Any]
) -> tuple[np.ndarray, Vectors]:
  """The index float32[documents, dim], and the encoder's answers."""
  _check(options, len(documents.ids))
  path = options.embeddings
  rows = {"documents": len(documents.ids), "titles": len(documents.ids)}
  rows["queries"] = len(queries)
  try:
    data = epath.Path(path).read_bytes()
    members = read_members(io.BytesIO(data))
    members = {key: x for key, x in members.items() if key in rows}
    _check_shapes(path, members, rows)
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      arrays = {key: file[key] for key in members}
  except UserError:
    raise
  except Exception as error:  # damaged archives raise of any type
    raise UserError(
      f"dataset.retrieval.embeddings is {path!r}: give an .npz with the"
      f" encoder's vectors of the documents ({error})"
    ) from error
  for name, found in arrays.items():
    if not np.isfinite(found).all():
      raise UserError(f"{path}: some {name} are not finite")
  name = f"file:{epath.Path(path).name}:{hashlib.sha256(data).hexdigest()[:16]}"
  anchors = np.asarray(arrays["documents"], np.float32)
  return anchors, Vectors(name, arrays.get("titles"), arrays.get("queries"))


def _check_shapes(
  path: str, members: Mapping[str, Member], rows: Mapping[str, int]
) -> None:
  """Refuses vectors that do not belong together, before they are unpacked."""
  if "documents" not in members:
    raise UserError(
      f"{path} has {', '.join(members) or 'no vectors'}: it needs documents"
    )
  dim = members["documents"].shape[-1:]
  for name, member in members.items():
    wanted = (rows[name], *dim)
    if member.shape != wanted or member.dtype.kind != "f" or not all(dim):
      raise UserError(
        f"{path}: {name} are {member.dtype} of shape {member.shape}, not float"
        f" {wanted}: one vector for each, all of one encoder"
      )
  if sum(member.nbytes for member in members.values()) > memory() // 4:
    raise UserError(f"{path} holds more than this machine's memory")
