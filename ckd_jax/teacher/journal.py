"""Requests and answers since the last durable part of a table.

One line is on the disk before a request is sent and one after its answer came
back, so a killed run neither loses an answer nor hides a repeated call. A
durable part of the table replaces its lines.
"""

import base64
import collections
import json
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.system import files


class Journal:
  """The journal of one table; hold the table's lock while you use it.

  Attributes:
    asked: id -> how often a request for it was sent without failing.
    answers: id -> float32[classes], durable here and not yet in a part.
  """

  def __init__(self, path: epath.PathLike):
    self.path = epath.Path(path)
    self.asked: collections.Counter[str] = collections.Counter()
    self.answers: dict[str, np.ndarray] = {}
    if self.path.exists():
      for number, line in enumerate(_whole_lines(self.path.read_bytes()), 1):
        try:
          self._replay(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
          raise UserError(
            f"line {number} of {self.path} is damaged: restore the file from"
            " a copy, or delete it and pay again for what it held"
          ) from error
      self._rewrite()  # a line cut by a kill must not swallow the next one

  def ask(self, ids: Sequence[str]) -> None:
    """Records a request that is about to be sent."""
    self._note({"ask": list(ids)})

  def fail(self, ids: Sequence[str]) -> None:
    """Records a failed request: a retry then repeats no call."""
    self._note({"fail": list(ids)})

  def answer(self, ids: Sequence[str], values: np.ndarray) -> None:
    """Makes answers, float[n, classes], durable."""
    self._note(_answer_line(ids, values))

  def repeated(self, ids: Iterable[str]) -> int:
    """How many requests for `ids` were sent more than once."""
    return sum(max(self.asked[name] - 1, 0) for name in ids)

  def settle(self, ids: Iterable[str]) -> None:
    """Drops the answers that the table now holds."""
    known = [name for name in ids if name in self.asked or name in self.answers]
    for name in known:
      self.asked.pop(name, None)
      self.answers.pop(name, None)
    if known:
      self._rewrite()

  def _note(self, event: dict) -> None:
    files.append(self.path, json.dumps(event))
    self._replay(event)

  def _replay(self, event: dict) -> None:
    if "ask" in event:
      self.asked.update(event["ask"])
    elif "fail" in event:
      self.asked.subtract(event["fail"])
    else:
      text = event["values"] if "values" in event else event["logits"]
      data = base64.b64decode(text, validate=True)  # `logits` in old journals
      if zlib.crc32(data) != event["crc32"]:
        raise ValueError("a flipped bit")
      values = np.frombuffer(data, "<f4").reshape(len(event["answer"]), -1)
      self.answers.update(zip(event["answer"], values, strict=True))

  def _rewrite(self) -> None:
    asked = {"ask": list(self.asked.elements())}
    answers = [_answer_line([key], row) for key, row in self.answers.items()]
    lines = [json.dumps(event) for event in (asked, *answers)]
    files.write(self.path, ("\n".join(lines) + "\n").encode())


def _answer_line(ids: Sequence[str], values: np.ndarray) -> dict:
  data = np.asarray(values, "<f4").tobytes()
  return {
    "answer": list(ids),
    "values": base64.b64encode(data).decode(),
    "crc32": zlib.crc32(data),
  }


def _whole_lines(data: bytes) -> list[bytes]:
  """The lines; the last one only if it ends, since a kill may have cut it."""
  return [line for line in data.split(b"\n")[:-1] if line]
