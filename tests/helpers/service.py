"""A service on loopback that fails in every way a teacher's may.

It keeps a ledger of its own: what it was sent, what it billed, and what it
billed and then dropped. `ask` is the function of its users.
"""

import collections
import contextlib
import hashlib
import http.server
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request

import numpy as np

from tests.helpers.asking import answers

ADDRESS = "CKD_TEST_SERVICE"  # the environment variable that `ask` reads
TOKEN = "t0p5ecretTOKENofTheService"
_LATE = 0.05  # seconds
_HANGS = 60.0  # seconds, well beyond any deadline of a test

# What may happen to a request, and how often of 1,000.
USUAL = {
  "refuses": 40,
  "hangs": 4,
  "late": 40,
  "in part": 40,
  "rate": 20,
  "drops": 10,
  "cut": 10,
}


class Service:
  """Answers on loopback until the block ends.

  Args:
    seed: draws what happens to each request.
    often: what may happen, and how often of 1,000 requests; the rest is well.
  """

  def __init__(self, seed: int = 0, often: dict[str, int] | None = None):
    self._random = random.Random(seed)
    self._often = USUAL if often is None else often
    self._guard, self._closing = threading.Lock(), threading.Event()
    self.sent: collections.Counter[str] = collections.Counter()
    self.billed: collections.Counter[str] = collections.Counter()
    self.dropped: collections.Counter[str] = collections.Counter()
    self.happened: collections.Counter[str] = collections.Counter()
    self.at_once, self.most_at_once = 0, 0

  def __enter__(self) -> "Service":
    service = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_POST(self):
        service._respond(self)

      def log_message(self, *_):
        pass

    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self._server.daemon_threads = True
    threading.Thread(target=self._server.serve_forever, daemon=True).start()
    port = self._server.server_port
    self.address = f"http://127.0.0.1:{port}/v1/ask?token={TOKEN}"
    return self

  def __exit__(self, *_) -> None:
    self._closing.set()
    self._server.shutdown()
    self._server.server_close()

  def _respond(self, handler) -> None:
    shape = json.loads(handler.headers["X-Shape"])
    data = handler.rfile.read(int(handler.headers["Content-Length"]))
    images = np.frombuffer(data, np.uint8).reshape(shape)
    keys = [hashlib.sha256(x.tobytes()).hexdigest() for x in images]
    with self._guard:
      self.at_once += 1
      self.most_at_once = max(self.at_once, self.most_at_once)
      self.sent.update(keys)
      what = self._drawn()
      self.happened[what] += 1
    try:
      # A client that was killed does not listen.
      with contextlib.suppress(ConnectionError):
        self._do(what, handler, images, keys)
    finally:
      with self._guard:
        self.at_once -= 1

  def _drawn(self) -> str:
    number = self._random.randrange(1000)
    for what, often in self._often.items():
      number -= often
      if number < 0:
        return what
    return "well"

  def _do(self, what: str, handler, images, keys) -> None:
    if what == "refuses":
      handler.send_error(503, f"busy; {handler.path}")  # its address, too
    elif what == "rate":
      handler.send_response(429)
      handler.send_header("Retry-After", "0.05")
      handler.end_headers()
    elif what == "hangs":
      self._closing.wait(_HANGS)
    else:
      self._answer(what, handler, images, keys)

  def _answer(self, what: str, handler, images, keys) -> None:
    if what == "late":
      time.sleep(_LATE)
    with self._guard:
      rows = list(range(len(keys)))
      self._random.shuffle(rows)
      if what == "in part":
        rows = rows[: len(rows) // 2]
      self.billed.update(keys[row] for row in rows)
      if what in ("drops", "cut"):
        self.dropped.update(keys[row] for row in rows)
    if what == "drops":
      return
    values = answers(images).tolist()
    body = json.dumps([[row, values[row]] for row in rows]).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2] if what == "cut" else body)


def ask(images: np.ndarray) -> list[list[float] | None]:
  """What a user of the service writes: uint8[n, h, w, c] -> n rows or None."""
  request = urllib.request.Request(
    os.environ[ADDRESS],
    data=images.tobytes(),
    headers={
      "X-Shape": json.dumps(images.shape),
      "Authorization": f"Bearer {TOKEN}",
    },
  )
  try:
    with urllib.request.urlopen(request) as response:
      given = dict(json.loads(response.read()))
  except urllib.error.HTTPError as error:
    error.close()
    raise
  return [given.get(row) for row in range(len(images))]
