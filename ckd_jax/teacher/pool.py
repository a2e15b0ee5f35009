"""Requests in flight at once, in threads that a second Ctrl-C leaves behind."""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from ckd_jax.teacher.pace import Stopped

Request = TypeVar("Request")

_TICK = 1.0  # seconds


def send_all(
  send: Callable[[Request], object],
  requests: Iterable[Request],
  concurrency: int,
  ending: threading.Event,
  *,
  tick: Callable[[], None],
  stopping: Callable[[], None],
) -> None:
  """Sends every request; after the first error no further one is begun.

  Args:
    send: called in a thread of its own, in the caller's context; it may raise
      `Stopped` once `ending` is set.
    requests: taken in order.
    concurrency: requests in flight at once, at most.
    ending: set here at the first error, or at a Ctrl-C.
    tick: called about once a second while requests are under way.
    stopping: called at a Ctrl-C, before what is in flight is waited for.

  Raises:
    BaseException: the first that `send` raised, or a KeyboardInterrupt here.
  """
  waiting, guard = iter(requests), threading.Lock()
  ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

  def work() -> None:
    try:
      while not ending.is_set():
        with guard:
          request = next(waiting, None)
        if request is None:
          break
        send(request)
      ended.put(None)
    except Stopped:
      ended.put(None)
    except BaseException as error:
      ending.set()
      ended.put(error)

  threads = [
    threading.Thread(
      # The context holds whether to be silent.
      target=contextvars.copy_context().run,
      args=(work,),
      daemon=True,  # or the process could not end before they do
    )
    for _ in range(concurrency)
  ]
  try:
    for thread in threads:
      thread.start()
    errors = [_next(ended, tick) for _ in threads]
  except KeyboardInterrupt:  # a Ctrl-C reaches the main thread only
    ending.set()
    stopping()
    for thread in threads:
      if thread.ident is not None:  # it was started
        thread.join()
    raise
  for error in filter(None, errors):
    raise error


def _next(ended: queue.SimpleQueue, tick: Callable[[], None]):
  while True:
    try:
      return ended.get(timeout=_TICK)
    except queue.Empty:
      tick()
