"""Gives a function up after a deadline.

A thread cannot be ended from outside, so one that is given up is left behind;
what it brings later is dropped.
"""

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any


def within(seconds: float, function: Callable[[Any], Any], argument: Any):
  """`function(argument)`, in a thread of its own if there is a deadline.

  Args:
    seconds: until it is given up; 0 is no limit.
    function: called once.
    argument: of the call.

  Raises:
    TimeoutError: it did not return in time.
    BaseException: what the function raised.
  """
  if not seconds:
    return function(argument)
  ended: queue.SimpleQueue[tuple[Any, BaseException | None]]
  ended = queue.SimpleQueue()

  def work() -> None:
    try:
      ended.put((function(argument), None))
    except BaseException as error:
      ended.put((None, error))

  # The context holds whether to be silent.
  run = contextvars.copy_context().run
  threading.Thread(target=run, args=(work,), daemon=True).start()
  try:
    result, error = ended.get(timeout=seconds)
  except queue.Empty:
    raise TimeoutError(
      f"no answer within {seconds:g} s, teacher.timeout"
    ) from None
  if error is not None:
    raise error
  return result
