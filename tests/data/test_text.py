"""Sets of texts: what is read from files, and what is refused in one line."""

import gzip
import json
import lzma
import tracemalloc

import numpy as np
import pytest

from ckd_jax import data
from ckd_jax.data import text_files
from ckd_jax.data.text import TextOptions, read
from ckd_jax.errors import UserError

TRAIN = 'label\tsource\ttext\nbad\tx\tA "b\nfine\ty\tc a, d a b c\nbad\tz\tb\n'
TEST = "text\tlabel\na b a c\tfine\n"
OPTIONS = TextOptions(length=3)


def folder(path, **files):
  """Writes files, whose endings follow two underscores in place of a dot."""
  for name, content in {
    "train__tsv": TRAIN,
    "test__tsv": TEST,
    **files,
  }.items():
    if content is not None:
      file = path / name.replace("__", ".")
      content = content if isinstance(content, bytes) else content.encode()
      file.write_bytes(content)
  return str(path)


def error(path, options=OPTIONS) -> str:
  with pytest.raises(UserError) as raised:
    read(path, options)
  message = str(raised.value)
  assert len(message.splitlines()) == 1
  return message


def test_a_table(tmp_path):
  found = read(folder(tmp_path), OPTIONS)
  assert found.class_names == ("bad", "fine")
  assert found.train.labels.tolist() == [0, 1, 0]
  assert found.train.ids.tolist() == ["train_0", "train_1", "train_2"]
  assert found.train.questions.tolist() == ['A "b', "c a, d a b c", "b"]
  # a 2, c 2, then `"b`, `a,`, b, d: a 3, b 4, c 5, ...
  assert found.view.vocabulary.decode([3, 4, 5, 6]) == 'a b c "b'
  assert found.train.inputs.tolist() == [[3, 6, 0], [5, 7, 8], [4, 0, 0]]
  assert found.test.inputs.tolist() == [[3, 4, 3]]
  assert found.test.labels.tolist() == [1]
  assert found.notes == (
    "1 of 3 train texts are longer than 3 tokens and are cut"
    " (dataset.text.length)",
    "1 of 1 test texts are longer than 3 tokens and are cut"
    " (dataset.text.length)",
  )
  assert read(str(tmp_path), TextOptions()).notes == ()


def test_the_fingerprint_is_of_the_texts_not_of_the_tokens(tmp_path):
  path = folder(tmp_path)
  one, other = (read(path, TextOptions(length=n)) for n in (3, 9))
  assert one.train.fingerprint == other.train.fingerprint
  folder(tmp_path, train__tsv=TRAIN.replace("b c", "b d"))
  assert read(path, OPTIONS).train.fingerprint != one.train.fingerprint


@pytest.mark.parametrize(
  ("ending", "pack"), [("xz", lzma.compress), ("gz", gzip.compress)]
)
def test_objects_pairs_and_compressed_files(tmp_path, ending, pack):
  rows = [
    {"label": 10, "text": "a\tb", "text2": "c"},
    {"label": 9, "text": "a", "text2": "\u00e9\u2028", "extra": [1]},
  ]
  lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
  files = {f"train__jsonl__{ending}": pack(lines.encode())}
  found = read(
    folder(
      tmp_path, train__tsv=None, test__tsv=None, val__jsonl=lines, **files
    ),
    TextOptions(length=5),
  )
  assert found.class_names == ("9", "10")
  assert found.train.labels.tolist() == [1, 0]
  assert found.train.questions.tolist() == ["a b\tc", "a\t\u00e9\u2028"]
  # a 3, b 4, c 5, then the accented letter.
  assert found.train.inputs.tolist() == [[3, 4, 2, 5, 0], [3, 2, 6, 0, 0]]
  np.testing.assert_array_equal(found.train.inputs, found.test.inputs)


def test_lines_of_windows(tmp_path):
  files = {
    f"{name}__tsv": b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode()
    for name, content in (("train", TRAIN), ("test", TEST))
  }
  (tmp_path / "plain").mkdir()
  plain = read(folder(tmp_path / "plain"), OPTIONS)
  found = read(folder(tmp_path, **files), OPTIONS)
  assert found.train.fingerprint == plain.train.fingerprint
  assert found.class_names == plain.class_names


def test_columns_of_other_names(tmp_path):
  rows = "a\tb\tc\nx\ty\tz\n"
  path = folder(tmp_path, train__tsv=rows, test__tsv=rows)
  options = TextOptions(columns=("c", "a"), label="b", length=3)
  found = read(path, options)
  assert found.train.questions.tolist() == ["z\tx"]
  assert found.class_names == ("y",)
  assert "no 'd', only 'a', 'b', 'c'" in error(
    path, options._replace(label="d")
  )


def test_a_row_ends_at_a_line_feed_alone(tmp_path):
  path = folder(tmp_path, train__tsv="text\tlabel\na\rb\x0bc\x85d\tfine\n")
  assert read(path, OPTIONS).train.questions.tolist() == ["a\rb\x0bc\x85d"]


def test_texts_of_a_language_model(tmp_path):
  path = folder(
    tmp_path, train__tsv=None, train__txt="ab\nba\n", test__tsv="text\na\tb\n"
  )
  options = TextOptions(tokens="characters", length=4, causal=True)
  assert "has 2 fields, the header 1" in error(path, options)
  (tmp_path / "test.tsv").write_text("text\ttext2\na\tb\n")
  found = read(path, options)
  assert found.class_names == () and found.view.causal
  assert found.train.inputs.tolist() == [[2, 3, 4, 0], [2, 4, 3, 0]]
  assert found.train.labels.tolist() == [[3, 4, 2, -1], [4, 3, 2, -1]]
  assert found.test.labels.tolist() == [[-1, 4, 2, -1]]  # `a` is given
  answers = np.zeros((1, 4, found.view.vocabulary.size))
  nats = found.judge(answers, found.test)["minus_nats_per_token"]
  assert nats == pytest.approx(-np.log(5))
  assert "no labels: give a .tsv" in error(path)


def test_an_answer_that_is_cut_off_whole_is_told_or_refused(tmp_path):
  rows = "text\ttext2\nabc\tde\nabcd\te\n"
  path = folder(tmp_path, train__tsv=rows, test__tsv=rows)
  options = TextOptions("characters", length=4, causal=True)
  assert read(path, options).notes == tuple(
    f"2 of 2 {name} texts are longer than 4 tokens and are cut, 1 of them"
    " before their answer (dataset.text.length)"
    for name in ("train", "test")
  )
  told = error(path, options._replace(length=3))
  assert "train.tsv: no answer fits into dataset.text.length=3" in told


REFUSED = {
  "no test": ({"test__tsv": None}, "has train: a set of texts is a folder"),
  "two": ({"train__jsonl": "{}"}, "train.jsonl and train.tsv: leave one"),
  "empty file": ({"train__tsv": ""}, "it names the columns"),
  "no rows": ({"test__tsv": "text\tlabel\n"}, "test.tsv has no rows"),
  "no header": (
    {"train__tsv": "1\ta\n0\tb\n"},
    "line 2 has no 'label', only '1', 'a'",
  ),
  "same column": ({"train__tsv": "text\ttext\n"}, "it names the columns"),
  "no label": (
    {"train__tsv": "text\na\n"},
    "line 2 has no 'label', only 'text'",
  ),
  "empty label": (
    {"test__tsv": "text\tlabel\na\t \n"},
    "line 2 has the label ' '",
  ),
  "fields": (
    {"train__tsv": TRAIN + "bad\n"},
    "line 5 has 1 fields, the header 3",
  ),
  "blank line": ({"train__tsv": TRAIN + "\n"}, "line 5 has 1 fields"),
  "empty text": (
    {"train__tsv": TRAIN + "bad\tz\t \n"},
    "train.tsv: row 3 has an empty text",
  ),
  "empty second": (
    {"train__tsv": "label\ttext\ttext2\n1\ta\t\n"},
    "row 0 has an empty text",
  ),
  "other label": (
    {"test__tsv": TEST + "b\tworse\n"},
    "row 1 has the label 'worse', the training rows have 'bad', 'fine'",
  ),
  "bytes": ({"test__tsv": b"text\tlabel\n\xff\tfine\n"}, "cannot be read"),
  "nul": ({"test__tsv": "text\tlabel\na\0\tfine\n"}, "NUL"),
  "cut off": (
    {"train__tsv": None, "train__tsv__xz": lzma.compress(TRAIN.encode())[:-20]},
    "cannot be read",
  ),
  "not packed": (
    {"train__tsv": None, "train__tsv__gz": TRAIN},
    "cannot be read",
  ),
}
OBJECTS = {
  "[1]": "line 1 is no JSON object",
  "{": "line 1 is no JSON object",
  "[" * 100_000: "line 1 is no JSON object",
  '{"text": "a"}': "line 1 has no 'label'",
  '{"text": "a", "label": null}': "line 1 has no 'label'",
  '{"text": "a", "label": 0.5}': "the label 0.5: give a string",
  '{"text": "a", "label": [1]}': "the label [1]: give",
  '{"text": "a", "label": true}': "line 1 has the label True",
  '{"text": 3, "label": 0}': "text of line 1 is no string",
  '{"text": "a", "text2": null, "label": 0}': "1 has no 'text2', only",
  '{"text": "\\ud800", "label": 0}': "row 0 is no Unicode text",
}
REFUSED |= {
  line[:40]: ({"train__tsv": None, "train__jsonl": line}, message)
  for line, message in OBJECTS.items()
}


@pytest.mark.parametrize("case", REFUSED)
def test_rows_that_are_refused(tmp_path, case):
  files, message = REFUSED[case]
  assert message in error(folder(tmp_path, **files))


def test_options_that_are_refused(tmp_path):
  path = folder(tmp_path)
  assert "no folder" in error(str(tmp_path / "absent"))
  assert "dataset.text.length is 0" in error(path, TextOptions(length=0))
  judge = TextOptions(judge="f1")
  assert "is 'f1': choose accuracy or matthews" in error(path, judge)


def test_a_small_file_is_not_unpacked_to_a_large_one(tmp_path, monkeypatch):
  monkeypatch.setattr(text_files, "memory", lambda: 8 * 10_000)
  line = lzma.compress(b"label\ttext\n1\t" + b"a" * 10**7, preset=0)
  files = {"train__tsv": None, "train__tsv__xz": line}
  path = folder(tmp_path, **files)
  tracemalloc.start()
  try:
    assert "more than this machine's memory" in error(path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  ("name", "rows", "classes"),
  [
    ("sst2", (6920, 1821), 2),
    ("trec", (5452, 500), 6),
    ("rte", (2490, 277), 2),
  ],
)
def test_real_sets(shared, name, rows, classes):
  if not (shared / "text" / name).is_dir():
    pytest.skip("needs ../shared/text")
  found = read(str(shared / "text" / name), TextOptions())
  assert (len(found.train.labels), len(found.test.labels)) == rows
  assert len(found.class_names) == classes
  assert found.train.inputs.max() == found.view.vocabulary.size - 1


def test_windows_of_a_running_text(tmp_path):
  text = "abcd\nefgh\tij kl\nmn" * 3
  (tmp_path / "input.txt").write_text(text)
  options = TextOptions("characters", length=5, causal=True, rows="windows")
  found = read(str(tmp_path / "input.txt"), options)
  whole = text.replace("\t", " ")
  end = int(0.9 * len(text))
  for part, wanted in ((found.train, whole[:end]), (found.test, whole[end:])):
    assert "".join(part.questions) == wanted
    assert all(len(window) <= 5 for window in part.questions)
  assert found.notes == ()  # the end of a window is no end of a text
  decode = found.view.vocabulary.decode
  for row, window in enumerate(found.train.questions[:3]):
    assert decode([2, *found.train.labels[row]]) == window
    assert decode(found.train.inputs[row]) == window[:-1]
  words = read(str(tmp_path / "input.txt"), options._replace(tokens="words"))
  assert words.train.questions[0] == "abcd efgh ij kl mnabcd"
  for name, words in (
    ("absent.txt", "absent.txt cannot be read: .*No such file"),
    ("absent", "absent is no folder, and no NAME.tsv, .jsonl or .txt"),
  ):
    with pytest.raises(UserError, match=words):
      read(str(tmp_path / name), options)
  with pytest.raises(UserError, match=r"dataset\.path: a \.txt, or a folder"):
    data.load("text", text=options)
  with pytest.raises(UserError, match=r"dataset\.text\.rows is 'windows'"):
    read(str(tmp_path / "input.txt"), options._replace(causal=False))


@pytest.mark.parametrize("name", ["names", "arithmetic"])
def test_texts_that_need_no_files(name):
  options = TextOptions("characters", length=16, causal=True)
  found = data.load(name, text=options)
  train, test = set(found.train.questions), set(found.test.questions)
  assert not train & test and len(train) > 6000 and len(test) > 900
  assert found.num_classes == len(found.answer_names) < 40
  assert found.notes == () and found.class_names == ()
  if name == "arithmetic":
    pairs = [
      {tuple(sorted(text.split("=")[0].split("+"))) for text in part}
      for part in (train, test)
    ]
    assert not pairs[0] & pairs[1]
    for text in (*train, *test):
      given, told = text.split("\t")
      assert eval(given.removesuffix("=")) == int(told)
  with pytest.raises(UserError, match="is for language models"):
    data.load(name, text=options._replace(causal=False))
  with pytest.raises(UserError, match=f"begin with configs/{name}.py"):
    data.load(name)
