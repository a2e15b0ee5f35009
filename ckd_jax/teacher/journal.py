"""Requests and answers since the last durable part of a table.

One line is on the disk before a request is sent and one after its answer came
back, so a killed run neither loses an answer nor hides a repeated call. A
durable part of the table replaces its lines. Every line holds a digest of
itself; those of older journals hold one of their answers alone, or none.
"""

import base64
import collections
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ckd_jax.errors import UserError
from ckd_jax.system import files, sealed

_IDS = ("ask", "fail", "refuse")  # events that are nothing but ids


class Journal:
  """The journal of one table; hold the table's lock while you use it.

  Attributes:
    asked: id -> how often a request for it was sent without failing.
    answers: id -> float32[classes], durable here and not yet in a part.
    failed: id -> how often a request for it failed; kept for good, since a
      service may bill them.
    refused: id -> how often its answer could not be used; kept for good, since
      each of them was a call.
  """

  def __init__(self, path: epath.PathLike):
    self.path = epath.Path(path)
    self.asked: collections.Counter[str] = collections.Counter()
    self.answers: dict[str, np.ndarray] = {}
    self.failed: collections.Counter[str] = collections.Counter()
    self.refused: collections.Counter[str] = collections.Counter()
    if self.path.exists():
      try:
        data = files.read(self.path)
      except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
      for number, line in enumerate(_lines(data), 1):
        try:
          self._replay(_checked(json.loads(line)))
        except (KeyError, RecursionError, TypeError, ValueError) as error:
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

  def refuse(self, ids: Sequence[str]) -> None:
    """Records an answer that cannot be used: the call was made all the same."""
    self._note({"refuse": list(ids)})

  def answer(self, ids: Sequence[str], values: np.ndarray) -> None:
    """Makes answers, float[n, classes], durable."""
    self._note(_answer(ids, values))

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

  def _note(self, event: dict[str, Any]) -> None:
    files.append(self.path, json.dumps(sealed.seal(event)))
    self._replay(event)

  def _replay(self, event: dict[str, Any]) -> None:
    if "ask" in event:
      self.asked.update(event["ask"])
    elif "fail" in event:
      self.asked.subtract(event["fail"])
      if min(self.asked.values(), default=0) < 0:
        raise ValueError("more failed than was asked")
      self.failed.update(event["fail"])
    elif "refuse" in event:
      self.refused.update(event["refuse"])
    else:
      width = {len(row) for row in self.answers.values()}
      values = _values(event)
      if not width <= {values.shape[1]}:
        raise ValueError("another number of classes")
      self.answers.update(zip(event["answer"], values, strict=True))

  def _rewrite(self) -> None:
    failed = list(self.failed.elements())
    events = [{"ask": [*self.asked.elements(), *failed]}]
    if failed:
      events.append({"fail": failed})
    if self.refused:
      events.append({"refuse": list(self.refused.elements())})
    events += [_answer([key], row) for key, row in self.answers.items()]
    lines = [json.dumps(sealed.seal(event)) for event in events]
    files.write(self.path, ("\n".join(lines) + "\n").encode())


def _answer(ids: Sequence[str], values: np.ndarray) -> dict[str, Any]:
  data = np.asarray(values, "<f4").tobytes()
  return {"answer": list(ids), "values": base64.b64encode(data).decode()}


def _values(event: dict[str, Any]) -> np.ndarray:
  """The answers of a line, float32[n, classes]."""
  text = event["values"] if "values" in event else event["logits"]
  data = base64.b64decode(text, validate=True)
  if zlib.crc32(data) != event.get("crc32", zlib.crc32(data)):
    raise ValueError("a flipped bit")
  values = np.frombuffer(data, "<f4").reshape(len(event["answer"]), -1)
  if not values.size or np.isnan(values).any() or (values == np.inf).any():
    raise ValueError("no answer that was ever accepted")
  return values


def _checked(event: Any) -> dict[str, Any]:
  """Refuses a line that `Journal` did not write."""
  if not isinstance(event, dict) or not sealed.is_whole(event):
    raise ValueError("not what was written")
  kind = (event.keys() - {sealed.KEY, "values", "logits", "crc32"}) or {None}
  (name,) = kind
  wanted = {name, sealed.KEY} if name in _IDS else {name, sealed.KEY, "values"}
  of_old = [
    wanted - {sealed.KEY} if name in _IDS else {"answer", of_values, "crc32"}
    for of_values in ("values", "logits")
  ]
  if name not in (*_IDS, "answer") or event.keys() not in (wanted, *of_old):
    raise ValueError("no such event")
  ids = event[name]
  if not isinstance(ids, list) or not all(isinstance(x, str) for x in ids):
    raise ValueError("ids are a list of names")
  return event


def _lines(data: bytes) -> list[bytes]:
  """The lines; of a last one without an end what is whole.

  A kill may have cut it. One that is whole but for its end was not cut: its end
  is damaged, and what it holds was paid for.
  """
  *lines, last = data.split(b"\n")
  whole = [line for line in (last, last[:-1]) if _is_sealed(line)]
  return [line for line in [*lines, *whole[:1]] if line]


def _is_sealed(line: bytes) -> bool:
  try:
    event = json.loads(line)
  except (RecursionError, ValueError):
    return False
  return isinstance(event, dict) and sealed.is_sealed(event)
