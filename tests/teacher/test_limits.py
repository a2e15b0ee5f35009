"""Limits of a table's cost, what a run paid of it, and progress messages."""

import asyncio
import json
import time

import numpy as np
import pytest

from ckd_jax import table, teacher
from ckd_jax.errors import UserError
from ckd_jax.system import redacted
from ckd_jax.teacher import Ledger, progress
from ckd_jax.teacher.journal import Journal
from tests.helpers.arrays import softmax
from tests.helpers.asking import Counting, answers, build


def test_max_calls_of_a_table_whoever_asks(tmp_path, split, black_box):
  """Bought and repeated calls count, over all runs that share the table."""
  box = Counting(lambda images: answers(images) * np.nan)
  with pytest.raises(UserError, match="NaN"):
    build(black_box(box), split, range(3), tmp_path / "t")
  box.answer = answers
  with pytest.raises(
    teacher.BudgetExceeded,
    match=r"call 7 was not made, teacher.max_calls is 6.*are kept",
  ):
    build(black_box(box), split, range(20), tmp_path / "t", max_calls=6)
  assert box.calls == 6  # of which one was for nothing
  with pytest.raises(teacher.BudgetExceeded):
    build(black_box(box), split, range(7), tmp_path / "t", max_calls=7)
  assert box.calls == 7
  _, paid, repeated = build(
    black_box(box), split, range(7), tmp_path / "t", max_calls=8
  )
  assert (box.calls, paid, repeated) == (8, 7, 1)
  # It limits what is bought, and not what is read.
  build(black_box(box), split, range(7), tmp_path / "t", max_calls=1)
  with pytest.raises(teacher.BudgetExceeded):
    build(black_box(box), split, range(8), tmp_path / "t", max_calls=8)
  assert box.calls == 8


def test_what_may_still_be_bought(tmp_path, split, black_box):
  order = teacher.Order(_subject(split), range(5))
  asked = black_box(answers)
  bought = teacher.build(asked, order, tmp_path / "t", budget=5)
  assert bought.may_buy == 0
  bought = teacher.build(asked, order, tmp_path / "t", budget=9)
  assert bought.may_buy == 4
  bought = teacher.build(asked, order, tmp_path / "t", budget=9, max_calls=7)
  assert bought.may_buy == 2


def _subject(split):
  return table.Subject("pets", "train", split, tuple("abcd"))


def test_a_ledger_knows_its_own_parts(tmp_path, split, black_box):
  ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
  asked = black_box(answers)

  def paid(path, count):
    found = build(
      asked, split, range(count), tmp_path / "t", ledger=Ledger(path)
    )
    return found[1:]

  assert paid(ours, 10) == (10, 0)
  assert paid(theirs, 15) == (5, 0)
  assert paid(ours, 15) == (10, 0)  # nothing new, and nothing forgotten
  assert paid(ours, 18) == (13, 0)
  assert paid(None, 18) == (0, 0)
  ours.write_text(ours.read_text()[:-9])
  with pytest.raises(UserError, match=r"ours.json is damaged: delete it"):
    Ledger(ours)


def test_a_part_that_no_table_names_was_not_paid(tmp_path):
  ledger = Ledger(tmp_path / "calls.json")
  ledger.enter({"file": "part-00000.npz", "sha256": "a", "rows": 4}, 1)
  ledger.enter({"file": "part-00000.npz", "sha256": "b", "rows": 3}, 0)
  again = Ledger(tmp_path / "calls.json")
  assert again.paid([{"sha256": "a"}, {"sha256": "x"}]) == (4, 1, 0)
  assert again.paid([]) == (0, 0, 0)
  assert json.loads((tmp_path / "calls.json").read_text())["parts"].keys() == {
    "a",
    "b",
  }


MISTAKES = AttributeError, TypeError, NameError, KeyError, AssertionError


@pytest.mark.parametrize("error", [*MISTAKES, ValueError])
def test_a_bug_in_the_function_is_told_at_once(split, black_box, error):
  def broken(images):
    raise error("no such thing")

  box = Counting(broken)
  asked = black_box(box, retries=5, back_off=0.1)
  with pytest.raises(
    UserError, match=rf"mistake in .*test_limits.py, line \d+: {error.__name__}"
  ):
    asked.ask(split.inputs[:1], needs=frozenset())
  assert box.calls == 1


def cut(text: str) -> json.JSONDecodeError:
  """What a response that ends too early raises: a kind of ValueError."""
  return json.JSONDecodeError(text, "{", 1)


@pytest.mark.parametrize("error", [OSError, TimeoutError, RuntimeError, cut])
def test_an_outage_is_waited_for(tmp_path, split, black_box, capsys, error):
  def flaky(images):
    if box.requests % 2:
      raise error("busy")
    return answers(images)

  box = Counting(flaky)
  _, paid, _ = build(black_box(box, retries=1), split, range(3), tmp_path / "t")
  assert (box.requests, paid) == (6, 3)
  said = capsys.readouterr()
  assert said.out.endswith(" about 3 images\n")
  (line,) = said.err.splitlines()
  assert line.endswith("3 of 3 answered, 3 failed, 0 repeated, 0 s left")


def test_progress_is_told_now_and_then(
  tmp_path, split, black_box, monkeypatch, capsys
):
  now = [0.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

  def slow(images):
    now[0] += 4.0
    return answers(images)

  build(black_box(slow), split, range(8), tmp_path / "t")
  lines = capsys.readouterr().err.splitlines()
  assert [line.split(": ")[-1] for line in lines] == [
    "3 of 8 answered, 0 failed, 0 repeated, 20 s left",
    "6 of 8 answered, 0 failed, 0 repeated, 8 s left",
    "8 of 8 answered, 0 failed, 0 repeated, 0 s left",
  ]


def test_probabilities_for_logits_are_told_once(
  tmp_path, split, black_box, capsys
):
  def likely(images):
    return softmax(answers(images) / 99)

  def run(function, name, **options):
    asked = black_box(function, **options)
    build(asked, split, range(20), tmp_path / name)
    return capsys.readouterr().err.count("these look like probabilities; if so")

  assert run(likely, "one") == 1
  assert run(likely, "several", request_size=3, concurrency=2) == 1
  assert run(likely, "known", kind="probs") == 0
  assert run(answers, "logits") == 0

  def one_by_chance(images):
    return likely(images) if box.requests == 1 else answers(images)

  box = Counting(one_by_chance)
  assert run(box, "chance") == 0


def test_answers_that_teach_nothing_are_told_once(
  tmp_path, split, black_box, capsys
):
  def run(function, name, count=20):
    build(black_box(function), split, range(count), tmp_path / name)
    return capsys.readouterr().err.count("teach nothing: is this the teacher?")

  assert run(lambda images: np.zeros((len(images), 4)), "zeros") == 1
  assert run(lambda images: 0 * answers(images) + np.arange(4), "alike") == 1
  assert run(lambda images: answers(images)[:, :1] * np.ones(4), "flat") == 1
  assert run(lambda images: np.zeros((len(images), 4)), "two", 2) == 1
  assert run(lambda images: np.zeros((len(images), 4)), "one", 1) == 0
  assert run(answers, "good") == 0

  def first_is_black(images):
    return answers(images) * (box.requests > 1)

  box = Counting(first_is_black)
  assert run(box, "black") == 0


SECRET = "s3cr3tVALUE"
OTHERS = ("0123abcd", "012345abcdef", "AKIA012")  # known by how they begin


@pytest.mark.parametrize(
  "text",
  [
    f"403 for url: https://host/v1/ask?image=3&token={SECRET}",
    f"cannot reach https://me:{SECRET}@host/v1",
    f"GET /v1/ask?key={SECRET} failed",
    f"headers: {{'Authorization': 'Bearer {SECRET}', 'Accept': '*/*'}}",
    f"api_key={SECRET} is not valid",
    f'{{"access_token": "{SECRET}", "code": 401}}',
    f"PASSWORD: {SECRET}",
    f"invalid key sk-{SECRET}-0123456789abcdef0123456789",
    f"{'x' * 300} {SECRET}",
    f"Authorization: Token {SECRET}",
    f"{{'authorization': 'Digest username=me, response={SECRET}'}}",
    f"{{b'X-Api-Key': b'{SECRET}'}}",
    f"Set-Cookie: session={SECRET}; Path=/",
    f"Max retries exceeded with url: /v1/{SECRET}/ask (Caused by x)",
    f"cannot reach https://hooks.host/services/{SECRET}",
    f"wss://me:{SECRET}/more@host/v1",
    f"https://host/v1\n  ?token={SECRET}",
    f"Incorrect API key provided: {SECRET}",
    f"login bob:{SECRET}@api.example.com",
    f"//bob:{SECRET}@api.example.com/v1",
    f"the password is {SECRET}",
    f"user=bob pass={SECRET}",
    f"{{'pwd': '{SECRET}', 'auth': '{SECRET}'}}",
    f"passphrase: {SECRET}",
    f"api_key='{SECRET} and {SECRET}' is not valid",
    f"{'x' * 3000} {SECRET}",
    f"GET /v1/key/{SECRET} failed",
    f"hf_{'abcdefgh' * 3}{SECRET}",
    "invalid key sk-live-0123abcd, hf_012345abcdef, AKIA0123456789",
  ],
)
@pytest.mark.parametrize("error", [OSError, KeyError])
def test_a_secret_of_the_function_is_not_told(
  tmp_path, split, black_box, capsys, text, error
):
  """Neither in the line nor in any file."""

  def leaky(images):
    raise error(text)

  with pytest.raises(UserError, match=error.__name__) as told:
    build(black_box(leaky), split, range(3), tmp_path / "t")
  said = capsys.readouterr()
  for secret in (SECRET, *OTHERS):
    assert secret not in str(told.value) + said.out + said.err
  for file in tmp_path.rglob("*"):
    assert file.is_dir() or SECRET.encode() not in file.read_bytes()


def test_a_secret_of_the_environment_is_not_told(
  tmp_path, split, black_box, monkeypatch
):
  """However it is written; and no error of an error is told either."""
  monkeypatch.setenv("MY_SERVICE_KEY", SECRET)
  monkeypatch.setenv("A_TOKEN", "abc")  # too short to be looked for

  class Wordless(Exception):
    def __str__(self):
      raise ValueError(SECRET)

  def leaky(images):
    try:
      raise OSError(f"cannot log in as {SECRET}!")
    except OSError as error:
      if wordless:
        raise Wordless from error
      error.add_note(SECRET)
      raise RuntimeError(f"({SECRET}) abc") from error

  cases = ((True, "it has no text"), (False, r"\(\.\.\.\) abc"))
  for wordless, wanted in cases:  # noqa: B007
    with pytest.raises(UserError, match=wanted) as told:
      build(black_box(leaky), split, range(3), tmp_path / "t")
    assert SECRET not in str(told.value)


def test_a_page_in_an_error_takes_no_time():
  """Signals wait for a pattern that is being looked for."""
  for page in ("a-" * 50_000, "a" * 99_999, "key: " * 20_000, "a:" * 50_000):
    begun = time.process_time()
    told = redacted.told(OSError(f"bad gateway: {page}"))
    assert time.process_time() - begun < 1
    assert told.startswith("OSError: bad gateway: ") and len(told) < 250
  assert redacted.shown("line\n" * 1000).startswith("line line ")


def test_what_is_no_secret_is_told(tmp_path, split, black_box, monkeypatch):
  monkeypatch.setenv("PWD", "/data/mine")
  monkeypatch.setenv("SMTP_PASS", "hunter22")
  assert redacted.shown("hunter22 in /data/mine") == "... in /data/mine"
  for text in (
    "No such file or directory: '/data/mine/model.bin'",
    "bypass=1, compass: north",
    "busy: 3 of 4 workers, try /status in 30 s",
    "token expired",
    "invalid literal for int() with base 10: 'abc'",
  ):

    def broken(images, text=text):
      raise OSError(text)

    with pytest.raises(UserError) as told:
      build(black_box(broken), split, range(1), tmp_path / "t")
    assert text in str(told.value)


def test_a_kill_before_the_journal_is_settled_costs_no_call(
  tmp_path, split, black_box, monkeypatch
):
  """A part in the table is not counted again from the journal."""
  box, settle = Counting(), Journal.settle

  def killed(self, ids):
    if ids:
      raise KeyboardInterrupt
    settle(self, ids)

  monkeypatch.setattr(Journal, "settle", killed)
  with pytest.raises(KeyboardInterrupt):
    build(black_box(box), split, range(20), tmp_path / "t", max_calls=20)
  monkeypatch.setattr(Journal, "settle", settle)
  build(black_box(box), split, range(20), tmp_path / "t", max_calls=20)
  assert box.calls == 20


def test_of_a_refused_request_what_can_be_used_is_kept(
  tmp_path, split, black_box
):
  box = Counting(
    lambda images: np.where([[0], [1], [0], [0]], np.nan, answers(images))
  )
  asked = black_box(box, request_size=4)
  with pytest.raises(UserError, match="asked about train_1: 1 of 4 rows"):
    build(asked, split, range(4), tmp_path / "t")
  box.answer = answers
  build(asked, split, range(4), tmp_path / "t", budget=5)
  assert box.calls == 5


def test_a_cancelled_client_is_an_outage(tmp_path, split, black_box):
  def cancelled(images):
    raise asyncio.CancelledError("token=hunter2")  # a BaseException

  with pytest.raises(UserError, match=r"CancelledError: token=\.\.\."):
    build(black_box(cancelled), split, range(1), tmp_path / "t")
