"""Texts -> token ids: words, characters, or a `tokenizers` file of the user's.

Ids: 0 padding, 1 unknown, 2 a separator, then words or characters by frequency
in the training texts, equally frequent ones in the order of their code points.
A tab in a text is the separator of a pair. In a language model's rows the
separator begins and ends a text; of a file it is the token that ends a text,
which has changed places with the one that would have had its id.
"""

import collections
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ckd_jax.errors import DAMAGED, UserError

KINDS = ("words", "characters")
PADDING, UNKNOWN, SEPARATOR = range(3)
_SPECIAL = 3
_PADS = ("[PAD]", "<pad>", "<|padding|>")
# What ends a text of a language model; the first that a file knows.
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "[SEP]")


class Vocabulary:
  """Tokens and their ids; equal ones have the same digest.

  Attributes:
    kind: "words", "characters", or "file".
    size: number of ids.
    digest: sha256 of all that decides which ids a text gets.
  """

  def __init__(self, kind: str, content: Sequence[str] | str):
    """Makes a vocabulary.

    Args:
      kind: "words", "characters" or "file".
      content: the words or characters from id 3 on; the JSON of the file.

    Raises:
      UserError: the JSON is no tokenizer, or `tokenizers` is not installed.
    """
    self.kind, self._content = kind, content
    written = json.dumps([kind, content if kind == "file" else list(content)])
    self.digest = hashlib.sha256(written.encode()).hexdigest()
    if kind == "file":
      self._tokenizer, self._shift = _tokenizer(str(content))
      self.size = self._tokenizer.get_vocab_size() + self._shift
    else:
      self._ids = {item: id_ for id_, item in enumerate(content, _SPECIAL)}
      if len(self._ids) < len(content):
        raise ValueError("a token occurs twice")
      self.size = len(content) + _SPECIAL

  def __eq__(self, other: Any) -> bool:
    return isinstance(other, Vocabulary) and self.digest == other.digest

  def __hash__(self) -> int:
    return hash(self.digest)

  def __repr__(self) -> str:
    return f"Vocabulary({self.kind}, {self.size}, {self.digest[:8]})"

  def facts(self) -> dict[str, str]:
    """Entries of a student's file, JSON values."""
    content = self._content
    content = content if isinstance(content, str) else list(content)
    return {
      "tokens": json.dumps(self.kind),
      "vocabulary": json.dumps(content),
      "vocabulary_sha256": json.dumps(self.digest),
    }

  @classmethod
  def from_facts(cls, facts: dict[str, str]) -> "Vocabulary":
    """The inverse of `facts`.

    Raises:
      LookupError, TypeError, ValueError: an entry is missing or makes no sense.
    """
    kind, content, digest = (
      json.loads(facts[key])
      for key in ("tokens", "vocabulary", "vocabulary_sha256")
    )
    wanted = str if kind == "file" else list
    if kind not in (*KINDS, "file") or not isinstance(content, wanted):
      raise ValueError("no vocabulary")
    if not all(isinstance(item, str) for item in content):
      raise TypeError("a token is no text")
    made = cls(kind, content if kind == "file" else tuple(content))
    if made.digest != digest:
      raise ValueError("the vocabulary is not the one that was written")
    return made

  def ids(self, text: str) -> list[int]:
    """The ids of a text of any length."""
    parts = text.split("\t")
    if self.kind == "file":
      pair = parts[0], "\t".join(parts[1:]) or None
      return [id_ + self._shift for id_ in self._tokenizer.encode(*pair).ids]
    ids: list[int] = []
    for part in parts:
      ids += [SEPARATOR, *self._known(part)]
    return ids[1:]

  def _known(self, text: str) -> list[int]:
    return [self._ids.get(item, UNKNOWN) for item in _items(self.kind, text)]

  def encode(self, texts: Iterable[str], length: int) -> tuple[np.ndarray, int]:
    """Tokens of texts.

    Args:
      texts: n of them.
      length: of the rows, in tokens; longer texts are cut.

    Returns:
      int32[n, length], 0 after the end of a text; and how many were cut.
    """
    rows = [self.ids(text) for text in texts]
    return _padded(rows, length, PADDING), sum(len(x) > length for x in rows)

  def encode_next(
    self, texts: Iterable[str], length: int
  ) -> tuple[np.ndarray, np.ndarray, int]:
    """Tokens of texts, and the one that follows each, for language models.

    Args:
      texts: n of them; what stands before a tab is given, not predicted.
      length: of the rows, in tokens; longer texts are cut.

    Returns:
      tokens int32[n, length], the separator first, 0 after the end; the next
      tokens int32[n, length], the separator last, -1 where none is counted:
      what is given, and padding; and how many texts were cut.
    """
    rows, following = [], []
    for text in texts:
      *given, rest = text.split("\t", 1)
      before = self._plain_ids(given[0]) if given else []
      after = self._plain_ids(rest)
      rows.append([SEPARATOR, *before, *after])
      following.append([-1] * len(before) + [*after, SEPARATOR])
    cut = sum(len(row) > length for row in rows)
    return _padded(rows, length, PADDING), _padded(following, length, -1), cut

  def _plain_ids(self, text: str) -> list[int]:
    if self.kind != "file":
      return self._known(text)
    ids = self._tokenizer.encode(text, add_special_tokens=False).ids
    return [self._with_end(id_ + self._shift) for id_ in ids]

  def _with_end(self, id_: int) -> int:
    """An id of a file with the end of a text in the separator's place."""
    return {self._end: SEPARATOR, SEPARATOR: self._end}.get(id_, id_)

  @functools.cached_property
  def _end(self) -> int:
    """The id that ends a text, before it changes places."""
    known = map(self._tokenizer.token_to_id, _ENDS)
    end = next((id_ for id_ in known if id_ is not None), None)
    if end is None or self.size <= SEPARATOR:
      raise UserError(
        "a language model needs a token that ends a text, and the tokenizers"
        f" file of dataset.text.tokens has none of {', '.join(_ENDS)}"
      )
    return end + self._shift

  def numbers(self) -> np.ndarray:
    """Of a language model's ids the tokens of the file, int[size].

    -1 is padding, which is no token.
    """
    ids = map(self._with_end, range(self.size))
    found = np.fromiter(ids, np.int64, self.size) - self._shift
    found[PADDING] = -1
    return found

  def pieces(self, text: str, length: int) -> list[str]:
    """Cuts a text where the tokenizers file parts `length` tokens."""
    encoded = self._tokenizer.encode(text, add_special_tokens=False)
    starts = [start for start, _ in encoded.offsets[length::length]]
    edges = [0, *starts, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]

  def names(self) -> tuple[str, ...]:
    """What each id stands for; of a file its number."""
    if self.kind == "file":
      return tuple(map(str, range(self.size)))
    return ("[padding]", "[unknown]", "[separator]", *self._content)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids up to the first separator or padding after the start."""
    items = []
    for id_ in map(int, ids):
      if id_ < _SPECIAL and id_ != UNKNOWN:
        if items:
          break
        continue
      items.append(
        "\ufffd" if id_ == UNKNOWN else self._content[id_ - _SPECIAL]
      )
    return (" " if self.kind == "words" else "").join(items)


def build(tokens: str, texts: Iterable[str], size: int) -> Vocabulary:
  """Makes a vocabulary of the training texts.

  Args:
    tokens: "words", split at spaces and lower-cased; "characters", as they are;
      or the path of a JSON file that `tokenizers` wrote.
    texts: counted; not read for a file.
    size: the most words or characters; the rarest beyond are unknown.

  Raises:
    UserError: the file is absent or no tokenizer, or size is not positive.
  """
  if tokens not in KINDS:
    return Vocabulary("file", _read(tokens))
  if size < 1:
    raise UserError(
      f"dataset.text.vocabulary_size is {size}: give a number, say 8000"
    )
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    for part in text.split("\t"):
      counts.update(_items(tokens, part))
  order = sorted(counts, key=lambda item: (-counts[item], item))
  return Vocabulary(tokens, tuple(order[:size]))


def _items(kind: str, text: str) -> list[str]:
  return text.lower().split() if kind == "words" else list(text)


def _padded(rows: list[list[int]], length: int, value: int) -> np.ndarray:
  padded = np.full((len(rows), length), value, np.int32)
  for place, row in zip(padded, rows, strict=True):
    place[: len(row)] = row[:length]
  return padded


def _read(path: str) -> str:
  file = epath.Path(path)
  try:
    return file.read_text()
  except (OSError, ValueError) as error:
    raise UserError(
      f"dataset.text.tokens is {path!r}: give words, characters, or the path of"
      f" a JSON file of the package tokenizers ({error})"
    ) from error


def _tokenizer(content: str) -> tuple[Any, int]:
  """A tokenizer, and what is added to its ids so that 0 is padding."""
  try:
    import tokenizers
  except ImportError:
    raise UserError(
      "a tokenizers file needs the package: pip install 'ckd_jax[text]'"
    ) from None
  try:
    padding = json.loads(content).get("padding") or {}
    tokenizer = tokenizers.Tokenizer.from_str(content)
  except Exception as error:  # of the library, of any type
    damaged = isinstance(error, DAMAGED)
    raise UserError(
      f"dataset.text.tokens is no file of tokenizers ({type(error).__name__}"
      f"{'' if damaged else f': {error}'})"
    ) from error
  tokenizer.no_padding()
  tokenizer.no_truncation()
  free = padding.get("pad_id") == 0 or tokenizer.id_to_token(0) in _PADS
  return tokenizer, 0 if free else 1
