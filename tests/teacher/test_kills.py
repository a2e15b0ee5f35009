"""However a build dies, no answer is bought twice."""

import base64
import json
import os
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest

from ckd_jax.errors import UserError
from ckd_jax.system import files
from ckd_jax.teacher.journal import Journal
from ckd_jax.teacher.ledger import Ledger
from tests.helpers.asking import answers, build
from tests.helpers.paths import ROOT

# Where the scripts below find the helpers.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}

# For every k: forks a build, kills it at its k-th fsync or call, builds again.
KILLING = """
import json, os, signal, numpy as np
from ckd_jax.data import Split
from tests.helpers import asking as t
from ckd_jax import table, teacher
from ckd_jax.table import Answers

rng = np.random.default_rng(0)
split = Split(
  rng.integers(0, 256, (40, 6, 6, 3), np.uint8), np.zeros(40, np.int32),
  np.asarray([f"train_{{row}}" for row in range(40)]), "f00d")
fsync, stage, asked_times = os.fsync, {stage!r}, [0]

def box(images):
  with open(path + ".calls", "a") as file:
    file.write("x" * len(images))
  asked_times[0] += 1
  if asked_times[0] == kill_call:
    os.kill(os.getpid(), signal.SIGKILL)
  return t.answers(images)

t.box = box
local = teacher.Teacher("local", lambda x, needs: Answers(box(x)))
asked = local if {local} else teacher.from_callable("tests.helpers.asking:box")

def child(kill_at):
  global kill_call
  count = [0]
  kill_call = kill_at if stage == "call" else 0
  def dying(number):
    count[0] += 1
    if count[0] == kill_at and stage == "before":
      os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)
    if count[0] == kill_at and stage == "after":
      os.kill(os.getpid(), signal.SIGKILL)
  os.fsync = dying
  _, paid, repeated = t.build(asked, split, range(6), path, part_size=4)
  with open(path + ".paid", "w") as file:
    json.dump([paid, repeated], file)
  os._exit(0)

def run(kill_at):
  pid = os.fork()
  if not pid:
    child(kill_at)
  return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

results = []
for kill_at in range(1, 200):
  path = os.path.join({folder!r}, f"{{kill_at}}")
  status = run(kill_at)
  if status == 0:
    break
  assert status == -signal.SIGKILL, status
  assert run(0) == 0
  calls = os.path.getsize(path + ".calls")
  info = table.read_info(path)
  digest = [p["sha256"] for p in info["parts"]]
  results.append([calls, info["calls"], info["repeated_calls"], digest])
  assert table.check(path, split)[1]
json.dump(results, open(os.path.join({folder!r}, "results"), "w"))
"""


@pytest.mark.parametrize(
  ("stage", "local", "at_risk"),
  [
    ("after", True, 4),
    pytest.param("before", False, 1, marks=pytest.mark.slow),
    pytest.param("call", False, 1, marks=pytest.mark.slow),
    pytest.param("before", True, 4, marks=pytest.mark.slow),
    pytest.param("after", False, 1, marks=pytest.mark.slow),
    pytest.param("call", True, 4, marks=pytest.mark.slow),
  ],
)
def test_kill_at_every_write(tmp_path, stage, local, at_risk):
  """However a build dies, the next one pays exactly for the rest."""
  script = KILLING.format(
    folder=str(tmp_path),
    stage=stage,
    local=local,
  )
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script)],
    capture_output=True,
    text=True,
    env=ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "results").read_text())
  assert len(results) >= {"call": 2 if local else 6}.get(stage, 12)
  for calls, counted, repeated, digest in results:
    assert counted == 6
    assert 6 <= calls <= 6 + repeated <= 6 + at_risk
    assert digest == results[0][3]  # a kill leaves no trace in the answers
    if stage == "call":
      assert calls == 6 + repeated > 6


SHARING = """
import sys, time
import numpy as np
from ckd_jax.data import Split
from tests.helpers import asking as t
from ckd_jax import teacher

def box(images):
  time.sleep(0.02)
  with open({folder!r} + "/calls", "a") as file:
    file.write("x")
  return t.answers(images)

t.box = box
rng = np.random.default_rng(0)
split = Split(
  rng.integers(0, 256, (40, 6, 6, 3), np.uint8), np.zeros(40, np.int32),
  np.asarray([f"train_{{row}}" for row in range(40)]), "f00d")
asked = teacher.from_callable("tests.helpers.asking:box", concurrency=2)
start = int(sys.argv[1])
read, paid, _ = t.build(
  asked, split, range(start, start + 20), {folder!r} + "/t")
print("paid", paid)
"""


def test_two_processes_pay_once(tmp_path):
  script = SHARING.format(folder=str(tmp_path))
  (tmp_path / "t").mkdir()
  with files.lock(tmp_path / "t"):  # so that both arrive before either asks
    processes = [
      subprocess.Popen(
        [sys.executable, "-c", script, start],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
      )
      for start in ("0", "5")
    ]
    waiting = [process.stderr.readline() for process in processes]
  outputs = [process.communicate()[0] for process in processes]
  assert all(line.startswith("waiting: ") for line in waiting), waiting
  assert [process.returncode for process in processes] == [0, 0]
  paid = sorted(int(text.split("paid ")[1]) for text in outputs)
  assert paid == [5, 20]
  assert (tmp_path / "calls").read_text() == "x" * 25


def test_a_read_only_table_is_enough(tmp_path, split, black_box, monkeypatch):
  asked = black_box(answers)
  build(asked, split, range(9), tmp_path / "t")

  def refuse(*_):
    raise UserError("read-only")

  for name in ("write", "append", "lock"):
    monkeypatch.setattr(files, name, refuse)
  read, paid, _ = build(asked, split, range(9), tmp_path / "t")
  assert len(read.ids) == 9 and paid == 0
  with pytest.raises(UserError, match="read-only"):
    build(asked, split, range(10), tmp_path / "t")


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
  def full(number):
    raise OSError(28, "No space left on device")

  files.write(tmp_path / "a", b"old")
  monkeypatch.setattr(files.os, "fsync", full)
  with pytest.raises(UserError, match=r"cannot write .*/a: No space left"):
    files.write(tmp_path / "a", b"new")
  assert (tmp_path / "a").read_bytes() == b"old"
  assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_damaged_journal_is_refused(tmp_path):
  file = tmp_path / "journal.jsonl"
  journal = Journal(file)
  journal.ask(["a", "b"])
  journal.answer(["a"], np.ones((1, 4)))
  whole = file.read_bytes()
  file.write_bytes(whole + b'{"ask": ["tor')  # cut by a kill
  journal = Journal(file)
  assert list(journal.answers) == ["a"] and journal.asked["b"] == 1
  journal.ask(["b"])
  assert Journal(file).repeated(["a", "b"]) == 1
  position = whole.index(b'"values": "') + 15
  broken = whole[:position] + b"Q" + whole[position + 1 :]
  file.write_bytes(broken)
  with pytest.raises(UserError, match=r"line 2 of .* is damaged"):
    Journal(file)


def test_a_journal_from_before_probabilities_had_their_own_name_is_read(
  tmp_path,
):
  file = tmp_path / "journal.jsonl"
  Journal(file).answer(["a"], np.arange(4.0)[None])
  new = file.read_bytes()
  data = np.arange(4, dtype="<f4").tobytes()
  line = {
    "answer": ["a"],
    "logits": base64.b64encode(data).decode(),
    "crc32": zlib.crc32(data),
  }
  for key in ("logits", "values"):
    old = {key if k == "logits" else k: x for k, x in line.items()}
    file.write_text(f'{{"ask": ["a"]}}\n{json.dumps(old)}\n')
    journal = Journal(file)
    np.testing.assert_array_equal(journal.answers["a"], np.arange(4.0))
    assert journal.asked == {"a": 1}
    assert file.read_bytes().splitlines()[-1] == new.splitlines()[-1]
  line["crc32"] ^= 1
  file.write_text(json.dumps(line) + "\n")
  with pytest.raises(UserError, match=r"line 1 of .* is damaged"):
    Journal(file)


def test_every_flipped_bit_of_a_journal_is_refused(tmp_path):
  """Of ids, answers and digests alike: no answer moves to another image."""
  file = tmp_path / "journal.jsonl"
  journal = Journal(file)
  journal.ask(["train_1", "train_2"])
  journal.answer(["train_1"], np.ones((1, 4)))
  journal.refuse(["train_2"])
  whole = file.read_bytes()
  for bit in range(8 * len(whole)):  # the last line's end, too
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)
    try:
      found = Journal(file)
    except UserError as error:
      assert str(error).startswith("line ")
      continue
    # A digest whose name is damaged looks like a line of before; its ids are
    # whole, and a line that was cut in two is refused. One that is whole but
    # for its end was not cut by a kill.
    assert found.asked == journal.asked
    assert found.refused == journal.refused
    assert found.answers["train_1"].tolist() == [1.0] * 4


def test_parts_without_their_table_are_not_paid_for_again(
  tmp_path, split, black_box
):
  asked = black_box(answers)
  build(asked, split, range(20), tmp_path / "t")
  (tmp_path / "t" / "table.json").unlink()
  parts = {path: path.read_bytes() for path in tmp_path.rglob("part-*")}
  assert len(parts) == 3
  with pytest.raises(UserError, match=r"holds answers and no table\.json"):
    build(asked, split, range(20), tmp_path / "t")
  assert parts == {path: path.read_bytes() for path in tmp_path.rglob("part-*")}


def test_every_flipped_bit_of_what_a_run_paid_is_refused(tmp_path):
  file = tmp_path / "calls.json"
  Ledger(file).enter({"sha256": "f" * 64, "rows": 8}, 1)
  whole = file.read_bytes()
  part = [{"sha256": "f" * 64}]
  for bit in range(8 * len(whole)):
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(damaged)
    try:
      assert Ledger(file).paid(part)[:2] == (8, 1)  # a bit of the digest's name
    except UserError as error:
      assert "calls.json is damaged: delete it" in str(error)
  facts = json.loads(whole)
  del facts["sha256"]
  file.write_text(json.dumps(facts))  # of before there was a digest
  assert Ledger(file).paid(part)[:2] == (8, 1)


@pytest.mark.parametrize(
  "line",
  [
    '{"ask": "abc"}',
    '{"ask": [1]}',
    '{"ask": {"a": 2}}',
    '{"fail": ["never_asked"]}',
    '{"ask": ["a"], "fail": ["a"]}',
    '{"asked": ["a"]}',
    "[]",
    "3",
    "[" * 100_000,
    *(
      json.dumps(
        {
          "answer": ["a"],
          "values": base64.b64encode(np.asarray(x, "<f4").tobytes()).decode(),
          "crc32": zlib.crc32(np.asarray(x, "<f4").tobytes()),
        }
      )
      for x in ([], [np.nan, 1], [np.inf, 1], [1, 2, 3])
    ),
  ],
  ids=lambda line: line[:20],
)
def test_a_line_that_no_build_wrote_is_refused_by_its_number(tmp_path, line):
  file = tmp_path / "journal.jsonl"
  Journal(file).answer(["b"], np.ones((1, 4)))
  file.write_text(f"{file.read_text()}{line}\n")
  with pytest.raises(UserError, match=r"line 2 of .*jsonl is damaged"):
    Journal(file)


def test_failed_attempts_are_never_forgotten(tmp_path):
  """However often the journal is opened, and after its answers moved on."""
  file = tmp_path / "journal.jsonl"
  journal = Journal(file)
  for _ in range(3):
    journal.ask(["a", "b"])
    journal.fail(["a", "b"])
  journal.ask(["a"])
  journal.answer(["a"], np.ones((1, 4)))
  for _ in range(3):
    journal = Journal(file)
    assert journal.failed == {"a": 3, "b": 3}
    assert journal.asked["a"] == 1 and journal.repeated(["a", "b"]) == 0
  journal.settle(["a"])
  for _ in range(2):
    journal = Journal(file)
    assert journal.failed == {"a": 3, "b": 3} and not +journal.asked
