"""Requests in flight at once, in threads that a second Ctrl-C leaves behind."""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Request = TypeVar("Request")


def send_all(
  send: Callable[[Request], object],
  requests: Iterable[Request],
  concurrency: int,
  stopping: Callable[[], None],
) -> None:
  """Sends every request; after the first error no further one is begun.

  Args:
    send: called in a thread of its own, in the caller's context.
    requests: taken in order.
    concurrency: requests in flight at once, at most.
    stopping: called at a Ctrl-C, before what is in flight is waited for.

  Raises:
    BaseException: the first that `send` raised, or a KeyboardInterrupt here.
  """
  waiting, guard = iter(requests), threading.Lock()
  ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
  failed = threading.Event()

  def work() -> None:
    try:
      while not failed.is_set():
        with guard:
          request = next(waiting, None)
        if request is None:
          break
        send(request)
      ended.put(None)
    except BaseException as error:
      failed.set()
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
  for thread in threads:
    thread.start()
  try:
    errors = [ended.get() for _ in threads]
  except KeyboardInterrupt:  # a Ctrl-C reaches the main thread only
    failed.set()
    stopping()
    for thread in threads:
      thread.join()
    raise
  for error in filter(None, errors):
    raise error
