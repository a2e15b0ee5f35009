"""What does a service that fails in every way cost, and is anything lost?

  PYTHONPATH=. python experiments/flaky_teacher.py [QUESTIONS] [SIZE]

A service on loopback (tests/helpers/service.py) refuses, hangs, answers late,
in another order or in part, limits the rate, drops and cuts what it billed.
QUESTIONS images (default 10,000) are asked about, SIZE a request (default 4), 8
requests at once, each with a deadline of 2 s: in one go, then with a Ctrl-C
every few seconds until it is done, then with SIGKILL in its place. The ledger
of the service is compared with ours. Exits with 1 if an image has no answer or
another's, or was billed more often than it was dropped plus what was under way
at a SIGKILL.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from tests.helpers.service import ADDRESS, TOKEN, Service

AT_ONCE = 8

# Asks as a run does; prints what it paid.
CLIENT = """
import json, sys
import numpy as np
from ckd_jax import errors, table, teacher
from ckd_jax.data import Split
from tests.helpers import asking as t

path, questions, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
images = np.random.default_rng(0).integers(
  0, 256, (questions, 6, 6, 3), np.uint8)
split = Split(images, np.zeros(questions, np.int32),
  np.asarray([f"train_{row}" for row in range(questions)]), "f00d")
box = teacher.from_callable("tests.helpers.service:ask", retries=9,
  back_off=0.02, concurrency=8, request_size=size, timeout=2.0)

def main(argv):
  ledger = teacher.Ledger(__import__("etils.epath").epath.Path(path + ".json"))
  order = teacher.Order(
    table.Subject("pets", "train", split, tuple("abcd")), range(questions))
  found = teacher.build(
    box, order, path, budget=questions, part_size=500, ledger=ledger)
  rows = found.table.rows(split.ids).values
  right = np.abs(rows - t.answers(images)).max(1) < 0.2
  print(json.dumps({"right": int(right.sum()), "rows": len(found.table.ids),
    "paid": found.paid, "repeated": found.repeated, "failed": found.failed}))

sys.exit(errors.command(main, []))
"""


def run(folder: pathlib.Path, service: Service, shape, signals: int | None):
  """The command until it is done; (its result, starts, seconds, what it said).

  Args:
    folder: of the table.
    service: the one that is asked.
    shape: (questions, images per request).
    signals: sent every few seconds; None is none.
  """
  draw, starts, begun, said = random.Random(1), 0, time.monotonic(), ""
  environment = os.environ | {ADDRESS: service.address}
  while True:
    starts += 1
    with subprocess.Popen(
      [sys.executable, "-c", CLIENT, str(folder / "t"), *map(str, shape)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=environment,
    ) as process:
      first = process.stdout.readline()
      if signals is not None and first.startswith("asking"):
        try:
          process.wait(draw.uniform(0, 4))
        except subprocess.TimeoutExpired:
          process.send_signal(signals)
      out, error = process.communicate()
    said += first + out + error
    if process.returncode == 0:
      seconds = time.monotonic() - begun
      return json.loads((first + out).splitlines()[-1]), starts, seconds, said
    wanted = {signal.SIGINT: 130, signal.SIGKILL: -9}.get(signals)
    if process.returncode != wanted:
      raise SystemExit(f"status {process.returncode}: {error}")


def judge(found, starts: int, said: str, service: Service, shape, name: str):
  """Lines about one run; False if something is lost or paid twice."""
  questions, size = shape
  billed = service.billed.total() - service.dropped.total()
  extra = billed - questions
  # What was under way at a SIGKILL may be paid for again.
  under_way = (starts - 1) * AT_ONCE * size if name == "SIGKILL" else 0
  known = min(under_way, found["repeated"])
  print(f"{name}: {starts} starts, {dict(service.happened)}")
  print(
    f"  the service: {service.sent.total()} images sent to it,"
    f" {service.billed.total()} billed, {service.dropped.total()} of them"
    f" dropped, {extra} billed twice; {service.most_at_once} requests at once"
  )
  print(f"  ours: {found}")
  whole = found["right"] == found["rows"] == found["paid"] == questions
  return whole and 0 <= extra <= known and TOKEN not in said


def main() -> int:
  """Three runs; returns the exit status."""
  questions = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
  shape = questions, int(sys.argv[2]) if len(sys.argv) > 2 else 4
  good = True
  for name, signals in (
    ("in one go", None),
    ("Ctrl-C", signal.SIGINT),
    ("SIGKILL", signal.SIGKILL),
  ):
    with tempfile.TemporaryDirectory() as folder, Service() as service:
      place = pathlib.Path(folder)
      found, starts, seconds, said = run(place, service, shape, signals)
      fine = judge(found, starts, said, service, shape, name)
    print(f"  {seconds:.0f} s; {'as promised' if fine else 'NOT AS PROMISED'}")
    good = good and fine
  return 0 if good else 1


if __name__ == "__main__":
  sys.exit(main())
