"""A service that fails in every way: every image answered once, paid once."""

import email.utils
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error

import numpy as np
import pytest

from ckd_jax import table, teacher
from ckd_jax.data import Split
from ckd_jax.errors import UserError
from ckd_jax.teacher import deadline, outage
from tests.helpers import service
from tests.helpers.asking import Counting, answers, build
from tests.helpers.paths import ROOT
from tests.helpers.service import ADDRESS, TOKEN, Service

QUESTIONS = 160
OFTEN = {name: 4 * often for name, often in service.USUAL.items()}


def of_many() -> Split:
  images = np.random.default_rng(0).integers(
    0, 256, (QUESTIONS, 6, 6, 3), np.uint8
  )
  return Split(
    images,
    np.zeros(QUESTIONS, np.int32),
    np.asarray([f"train_{row}" for row in range(QUESTIONS)]),
    "f00d",
  )


@pytest.fixture
def many() -> Split:
  return of_many()


def asked(**manner):
  how = {"retries": 9, "back_off": 0.005, "concurrency": 8, "timeout": 0.5}
  return teacher.from_callable("tests.helpers.service:ask", **how | manner)


def bought(asked, split, path, **options) -> teacher.Bought:
  order = teacher.Order(
    table.Subject("pets", "train", split, tuple("abcd")), range(QUESTIONS)
  )
  options = {"budget": QUESTIONS, "part_size": 50, **options}
  return teacher.build(asked, order, path, **options)


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_every_image_is_answered_and_paid_once(
  tmp_path, many, monkeypatch, capsys, size
):
  with Service(often=OFTEN) as served:
    monkeypatch.setenv(ADDRESS, served.address)
    found = bought(asked(request_size=size), many, tmp_path / "t")
  assert set(served.happened) >= {"well", "refuses", "late", "rate", "in part"}
  got = found.table.rows(many.ids).values
  np.testing.assert_allclose(got, answers(many.inputs), 1e-3)
  assert (found.paid, found.repeated) == (QUESTIONS, 0)
  # Each sending is counted: those that brought an answer, and the others, of
  # which one or two may be given up before the service has seen them.
  counted = QUESTIONS + found.failed
  assert QUESTIONS < counted - 2 * size <= served.sent.total() <= counted
  assert served.billed - served.dropped == dict.fromkeys(served.billed, 1)
  said = capsys.readouterr()
  assert f"{QUESTIONS} answered, {found.failed} failed, 0 repeated" in said.err
  assert TOKEN not in said.out + said.err


def test_attempts_are_limited_over_starts(tmp_path, many, monkeypatch):
  """However often the command is given again, failed requests included."""
  with Service(often={"refuses": 500, "drops": 200, "hangs": 5}) as served:
    monkeypatch.setenv(ADDRESS, served.address)
    for _ in range(6):
      with pytest.raises(UserError, match=r"failed 2 times|call 101 was not"):
        bought(asked(retries=1), many, tmp_path / "t", max_attempts=100)
    with pytest.raises(teacher.BudgetExceeded, match="max_attempts is 100"):
      bought(asked(retries=9), many, tmp_path / "t", max_attempts=100)
    assert served.sent.total() <= 100
    sent = served.sent.total()
    with pytest.raises(teacher.BudgetExceeded):
      bought(asked(), many, tmp_path / "t", max_attempts=sent)
    assert served.sent.total() == sent


def test_a_deadline_gives_a_request_up(tmp_path, many, capsys):
  released = threading.Event()

  def slow(images):
    if box.requests == 2:
      released.wait(60)
    return answers(images)

  box = Counting(slow)
  begun = time.monotonic()
  function = teacher.from_function(
    box, "box", timeout=0.2, back_off=0.01, retries=1
  )
  table_, paid, repeated = build(function, many, range(3), tmp_path / "t")
  assert time.monotonic() - begun < 5
  released.set()
  assert (box.requests, paid, repeated) == (4, 3, 0)
  np.testing.assert_allclose(
    table_.answers.values, answers(many.inputs[:3]), 1e-3
  )
  assert "3 of 3 answered, 1 failed" in capsys.readouterr().err


def test_within_raises_what_the_function_raised():
  def wrong(x):
    raise KeyError(x)

  with pytest.raises(KeyError, match="3"):
    deadline.within(9, wrong, 3)
  assert deadline.within(9, str, 3) == deadline.within(0, str, 3) == "3"
  with pytest.raises(TimeoutError, match=r"within 0.05 s, teacher.timeout"):
    deadline.within(0.05, time.sleep, 9)


def test_a_hanging_request_is_told(tmp_path, many, monkeypatch, capsys):
  monkeypatch.setattr(teacher.progress, "_INTERVAL", 1.0)

  def slow(images):
    time.sleep(2.5)
    return answers(images)

  build(
    teacher.from_function(slow, "box", retries=0),
    many,
    range(1),
    tmp_path / "t",
  )
  lines = capsys.readouterr().err.splitlines()
  assert any(
    "0 of 1 answered, 0 failed, 0 repeated, unknown left; a request has been"
    in line
    for line in lines
  )


def test_what_a_service_asks_for_is_waited_for(tmp_path, many, monkeypatch):
  """By all threads, not by the one that was refused alone."""
  times = []

  def limited(images):
    times.append(time.monotonic())
    if len(times) == 1:
      raise urllib.error.HTTPError(
        "http://h", 429, "too many", {"Retry-After": "0.3"}, None
      )
    return answers(images)

  function = teacher.from_function(
    limited, "box", back_off=0.001, concurrency=2, requests_per_second=20
  )
  build(function, many, range(5), tmp_path / "t")
  assert len(times) == 6
  assert sum(when - times[0] < 0.3 for when in times[1:]) <= 1


def test_retry_after_of_many_clients():
  class Headers(dict):
    pass

  class OfRequests(Exception):
    def __init__(self, value):
      self.response = type(
        "R", (), {"headers": Headers({"Retry-After": value})}
      )

  assert outage.retry_after(OfRequests("7")) == 7
  assert outage.retry_after(OfRequests("1e9")) == 0  # no number of seconds
  assert outage.retry_after(OfRequests("999999")) == 3600
  assert outage.retry_after(OfRequests("-3")) == 0
  assert outage.retry_after(OfRequests("soon")) == 0
  later = email.utils.formatdate(time.time() + 60, usegmt=True)
  assert 50 < outage.retry_after(OfRequests(later)) <= 60
  assert outage.retry_after(OSError("no headers")) == 0


def test_rows_without_an_answer_are_asked_about_again(tmp_path, split):
  """Only they; the others are kept, also if the patience ends there."""

  def partial(images):
    rows = answers(images).tolist()
    return [
      row if (box.requests + i) % 2 else None for i, row in enumerate(rows)
    ]

  box = Counting(partial)
  function = teacher.from_function(
    box, "box", back_off=0.0, retries=8, request_size=4
  )
  read, paid, repeated = build(function, split, range(8), tmp_path / "t")
  assert (paid, repeated) == (8, 0)
  np.testing.assert_allclose(
    read.rows(split.ids[:8]).values, answers(split.inputs[:8]), 1e-3
  )
  box = Counting(lambda images: [answers(images)[0], *[None] * 3])
  function = teacher.from_function(box, "box", retries=0, request_size=4)
  with pytest.raises(UserError, match=r"1 times .3 questions without an"):
    build(function, split, range(8, 12), tmp_path / "t")
  assert box.calls == 4
  box = Counting()
  function = teacher.from_function(box, "box", request_size=4)
  build(function, split, range(8, 12), tmp_path / "t")
  assert box.calls == 3


CLIENT = """
import sys
from ckd_jax import errors
import tests.teacher.test_service as t

split = t.of_many()
box = t.asked(request_size=2)
sys.exit(errors.command(
  lambda argv: t.bought(box, split, sys.argv[1]), []))
"""


def test_a_ctrl_c_pays_nothing_again(tmp_path, many):
  """Also while requests are waited for that a service refused."""
  often = {"refuses": 300, "late": 400, "drops": 20}
  with Service(often=often) as served:
    environment = os.environ | {
      ADDRESS: served.address,
      "PYTHONPATH": str(ROOT),
    }
    for wait in (0.3, None):
      with subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path / "t")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
      ) as process:
        assert process.stdout.readline().startswith("asking ")
        if wait is not None:
          time.sleep(wait)
          process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
        # A signal after the last answer has nothing to keep.
        told = ("answers are kept", f"{QUESTIONS} of {QUESTIONS} answered")
        assert wait is None or any(words in error for words in told)
      assert process.returncode == (0 if wait is None else 130), error
      assert TOKEN not in error
  assert len(served.billed) == QUESTIONS
  assert served.billed - served.dropped == dict.fromkeys(served.billed, 1)
