"""Asks about the rows of one part after the other, patiently."""

import contextlib
import copy
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ckd_jax.errors import UserError
from ckd_jax.methods import TopK
from ckd_jax.table import Answers
from ckd_jax.teacher.checked import checked
from ckd_jax.teacher.journal import Journal
from ckd_jax.teacher.order import Limits, Order
from ckd_jax.teacher.outage import Outage
from ckd_jax.teacher.pace import Pace, Stopped, pause
from ckd_jax.teacher.pool import send_all
from ckd_jax.teacher.progress import AskingProgress
from ckd_jax.teacher.teacher import Teacher
from ckd_jax.teacher.twins import Twins


class Asker:
  """Asks for the answers of one part after the other.

  Args:
    teacher: the one that is asked.
    order: the rows, and the view of them.
    needs: fields of `Outputs` that the answers must have.
    journal: records requests and answers until a part is durable.
    limits: can refuse a request.
    progress: counts answers and failures.
    twins: compares answers about equal images.
  """

  def __init__(
    self,
    teacher: Teacher,
    order: Order,
    needs: frozenset[str],
    journal: Journal,
    limits: Limits,
    progress: AskingProgress,
    twins: Twins,
  ):
    self._teacher, self._order, self._needs = teacher, order, needs
    self._journal, self._limits = journal, limits
    self._progress, self._twins = progress, twins
    self._rows = dict(zip(order.ids, map(int, order.rows), strict=True))
    self._form = order.form
    self._guard = threading.Lock()
    self._ending = threading.Event()
    self._pace = Pace(
      teacher.manner.requests_per_second if teacher.manner else 0
    )
    self._is_over = False

  def answers(self, ids: list[str]) -> Answers:
    """The answers about these rows, including those in the journal."""
    manner, journal = self._teacher.manner, self._journal
    if manner is None:
      return self._ask_at_once(ids)
    unasked = [name for name in ids if name not in journal.answers]
    size = manner.request_size
    requests = [unasked[i : i + size] for i in range(0, len(unasked), size)]
    try:
      send_all(
        self._send,
        requests,
        min(manner.concurrency, len(requests)),
        self._ending,
        tick=self._progress.tick,
        stopping=self._progress.stopping,
      )
    except BaseException:
      with self._guard:
        self._is_over = True  # what is left behind may write no more
      self._progress.finish()
      raise
    flat = np.stack([journal.answers[name] for name in ids])
    return Answers(self._form.unpack(flat))

  def _ask_at_once(self, ids: list[str]) -> Answers:
    """Asks a local teacher about a whole part."""
    rows = [self._rows[name] for name in ids]
    self._limits.allow(len(ids))
    self._begin(ids)
    try:
      given = self._teacher.ask(self._order.inputs(rows), needs=self._needs)
    except Exception:
      self._fail(ids)
      raise
    answers = checked(given, ids, self._order, self._needs, self._teacher)
    self._progress.answered(answers.values, self._journal.repeated(ids))
    return answers

  def _send(self, request: list[str]) -> None:
    """Sends a request to a black box until every question of it is answered."""
    manner = self._teacher.manner
    with self._guard:
      self._limits.allow(len(request))
    for attempt in range(manner.retries + 1):
      self._pace.wait(self._ending)
      asked = self._order.questions([self._rows[name] for name in request])
      self._begin(request)
      try:
        with self._progress.under_way():
          # A copy: the function may change it, and twins compare questions.
          mine = copy.deepcopy(asked)
          given = self._teacher.ask(mine, needs=self._needs)
      except Outage as error:
        given, outage, failed = None, error, request
      except Exception:  # a Ctrl-C says nothing about the request
        self._fail(request)
        raise
      if given is not None:
        failed = self._keep(request, asked, given)
        if not failed:
          return
        outage = Outage(f"{len(failed)} questions without an answer")
      self._fail(failed)
      self._pace.hold(outage.wait)
      if attempt < manner.retries:
        pause(max(manner.back_off * 2**attempt, outage.wait), self._ending)
      request = failed
    raise UserError(
      f"the teacher {self._teacher.name} failed {manner.retries + 1} times"
      f" ({outage}): its answers so far are kept, the same command asks for the"
      " rest; failed requests do not count as calls, but a service may bill"
      " them: teacher.max_attempts limits them, and teacher.retries=0 sends"
      " each once"
    ) from outage.__cause__

  def _begin(self, request: Sequence[str]) -> None:
    """Records a request on the disk before it is sent."""
    with self._guard:
      if self._is_over:
        raise Stopped
      self._limits.send(len(request))
      self._journal.ask(request)

  def _fail(self, request: Sequence[str]) -> None:
    with self._guard:
      if not self._is_over:
        self._journal.fail(request)
    self._progress.fail(len(request))

  def _keep(self, request: list[str], asked: Any, given: Answers) -> list[str]:
    """Keeps the answers of a request; returns the ids that have none."""
    rows, whole = list(range(len(request))), given.values
    each = isinstance(whole, list | tuple) and not isinstance(whole, TopK)
    if each and len(whole) == len(request):
      rows = [row for row, answer in enumerate(whole) if answer is not None]
      given = Answers([whole[row] for row in rows])
    if not rows:
      return request
    ids = [request[row] for row in rows]
    failed = [name for name in request if name not in set(ids)]
    try:
      answers = checked(given, ids, self._order, self._needs, self._teacher)
    except UserError:
      self._keep_what_can_be_used(ids, given.values)
      if failed:
        self._fail(failed)
      raise
    with self._guard:
      if self._is_over:
        raise Stopped
      flat = self._form.pack(answers.values)
      self._journal.answer(ids, flat)
      repeated = self._journal.repeated(ids)
    self._progress.answered(answers.values, repeated)
    self._twins.look(ids, [asked[row] for row in rows], flat)
    return failed

  def _keep_what_can_be_used(self, ids: list[str], values: Any) -> None:
    """Keeps, of a request that is refused, the rows that could be used."""
    usable: dict[str, np.ndarray] = {}
    try:
      pairs = list(zip(ids, values, strict=True))
    except (TypeError, ValueError):  # whose answer a row is, nobody knows
      pairs = []
    for name, row in pairs:
      with contextlib.suppress(UserError):
        args = [name], self._order, self._needs, self._teacher
        usable[name] = self._form.pack(checked(Answers([row]), *args).values)
    with self._guard:
      if self._is_over:
        return
      for name, row in usable.items():
        self._journal.answer([name], row)
      self._journal.refuse([name for name in ids if name not in usable])
