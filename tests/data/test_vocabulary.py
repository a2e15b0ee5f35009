"""Texts to token ids and back; what a student's file keeps of them."""

import hashlib
import json

import numpy as np
import pytest

from ckd_jax.data.token_view import TokenView
from ckd_jax.data.vocabulary import Vocabulary, build
from ckd_jax.errors import UserError

TEXTS = ["b A a", "c b", "a  d", "D\tc"]  # a 3, then b, c and d 2 each


def test_words_by_frequency_and_ties_by_word():
  vocabulary = build("words", TEXTS, 3)
  assert vocabulary.size == 6
  rows, cut = vocabulary.encode(["a B c", "A d", "", "d\tc a"], 3)
  assert rows.tolist() == [[3, 4, 5], [3, 1, 0], [0, 0, 0], [1, 2, 5]]
  assert rows.dtype == np.int32 and cut == 1
  assert vocabulary.decode(rows[0]) == "a b c"
  assert build("words", TEXTS, 99).size == 7


def test_characters_are_as_they_are():
  vocabulary = build("characters", ["aAa", "b a"], 99)
  assert vocabulary.encode(["a A?"], 6)[0].tolist() == [[3, 4, 5, 1, 0, 0]]
  assert vocabulary.decode([3, 5, 6, 0, 3]) == "aAb"


def test_next_tokens():
  vocabulary = build("characters", ["ab"], 9)  # a 3, b 4
  tokens, following, cut = vocabulary.encode_next(["ab", "ab\tba", "abab"], 4)
  assert tokens.tolist() == [[2, 3, 4, 0], [2, 3, 4, 4], [2, 3, 4, 3]]
  assert following.tolist() == [
    [3, 4, 2, -1],
    [-1, -1, 4, 3],
    [3, 4, 3, 4],
  ]
  assert cut == 2
  assert vocabulary.decode(tokens[0]) == "ab"


def test_the_digest_is_of_what_decides_the_ids():
  made = build("words", TEXTS, 3)
  assert made == build("words", [*TEXTS, "a b"], 3)
  assert hash(made) == hash(build("words", TEXTS, 3))
  others = [build("words", TEXTS, 4), build("characters", ["abc"], 3)]
  assert made not in others
  # Students' files and tables are bound to it.
  written = json.dumps(["words", ["a", "b", "c"]]).encode()
  assert made.digest == hashlib.sha256(written).hexdigest()


def tokenizer_file(path, pad: bool):
  tokenizers = pytest.importorskip("tokenizers")
  words = (["[PAD]"] if pad else []) + ["[UNK]", "a", "b", "[SEP]"]
  ids = {word: id_ for id_, word in enumerate(words)}
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(ids, unk_token="[UNK]")
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="$A", pair="$A [SEP] $B", special_tokens=[("[SEP]", ids["[SEP]"])]
  )
  made.enable_truncation(2)
  made.enable_padding(length=9, pad_id=ids.get("[PAD]", 2))
  made.save(str(path))
  return str(path)


@pytest.mark.parametrize("pad", [True, False])
def test_a_file_of_tokenizers(tmp_path, pad):
  """Its cutting and padding are ours; its first id is padding, or moved."""
  vocabulary = build(tokenizer_file(tmp_path / "own.json", pad), [], 0)
  assert vocabulary.size == 5
  rows, cut = vocabulary.encode(["a b a c", "b\ta"], 5)
  assert rows.tolist() == [[2, 3, 2, 1, 0], [3, 4, 2, 0, 0]] and cut == 0
  assert Vocabulary.from_facts(vocabulary.facts()) == vocabulary
  # [SEP] ends a text of a language model, and is 2 there: a, or b, has its id.
  tokens, following, _ = vocabulary.encode_next(["a b"], 4)
  assert tokens.tolist() == [[2, 4, 3, 0]]
  assert following.tolist() == [[4, 3, 2, -1]]


@pytest.mark.parametrize("content", ["", "{}", "[]", "[" * 100_000, '{"a": 1}'])
def test_no_file_of_tokenizers(tmp_path, content):
  pytest.importorskip("tokenizers")
  path = tmp_path / "own.json"
  path.write_text(content)
  with pytest.raises(UserError, match="no file of tokenizers"):
    build(str(path), [], 0)


def test_bad_options():
  with pytest.raises(UserError, match=r"'word'.*give words, characters, or"):
    build("word", [], 8)
  with pytest.raises(UserError, match="vocabulary_size is 0"):
    build("words", [], 0)


VIEW = TokenView(build("words", TEXTS, 3), 4)


def test_what_a_user_gives():
  one, shape = VIEW.read("a B")
  assert one.tolist() == [[3, 4, 0, 0]] and shape == ()
  for texts in (["a", "b\tc"], np.array(["a", "b\tc"])):
    several, shape = VIEW.read(texts)
    assert several.tolist() == [[3, 0, 0, 0], [4, 2, 5, 0]] and shape == (2,)
  same, shape = VIEW.read(several.astype(np.int64))
  np.testing.assert_array_equal(same, several)
  assert same.dtype == np.int32 and shape == (2,)
  causal = VIEW._replace(causal=True).read(["a"])[0]
  assert causal.tolist() == [[2, 3, 0, 0]]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (np.zeros((2, 4), np.float32), "takes a list of str"),
    (np.zeros((2, 3), np.int32), r"int32\[n, 4\]"),
    (np.full((1, 4), 6), "token id is 6: .* 0 to 5"),
    (np.full((1, 4), -1), "token id is -1"),
    (["a", None], "not a str"),
  ],
)
def test_what_is_no_text(given, message):
  with pytest.raises(UserError, match=message):
    VIEW.read(given)


def test_facts_of_a_view():
  facts = VIEW.facts()
  assert all(isinstance(json.dumps(value), str) for value in facts.values())
  assert TokenView.from_facts(facts) == VIEW
  changes = (
    {"length": "0"},
    {"length": "true"},
    {"causal": "1"},
    {"tokens": '"glyphs"'},
    {"vocabulary": '["a", "b", "d"]'},
    {"vocabulary": '["a", "a", "b"]'},
    {"vocabulary": "[1, 2, 3]"},
    {"vocabulary": '"abc"'},
  )
  for change in changes:
    with pytest.raises((LookupError, TypeError, ValueError)):
      TokenView.from_facts(facts | change)
  with pytest.raises(LookupError):
    TokenView.from_facts({})


def test_views_that_do_not_fit():
  other = build("words", ["z"], 3)
  assert VIEW.mismatch(VIEW) is None
  assert VIEW.mismatch(VIEW._replace(length=3)) is None
  assert "4 tokens, the texts have 5" in VIEW.mismatch(VIEW._replace(length=5))
  assert "vocabulary" in VIEW.mismatch(VIEW._replace(vocabulary=other))
  assert "the next token" in VIEW.mismatch(VIEW._replace(causal=True))
  assert VIEW.numbers() != VIEW._replace(vocabulary=other).numbers()
  assert VIEW.options() == {"vocabulary": 6, "length": 4}
