"""Functions as teachers: an API, say."""

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from ckd_jax.errors import UserError
from ckd_jax.system import imports, redacted
from ckd_jax.table import Answers
from ckd_jax.teacher.teacher import AnswerFunction, Failures, Teacher

# A mistake in the user's function raises these, and a retry would not mend it.
# An outage may raise OSError, TimeoutError, RuntimeError, or, after a cut
# response, ValueError.
BUGS = (
  ArithmeticError,
  AssertionError,
  AttributeError,
  ImportError,
  LookupError,
  NameError,
  NotImplementedError,
  SyntaxError,
  TypeError,
)


def from_callable(
  spec: str,
  *,
  retries: int = 3,
  back_off: float = 1.0,
  concurrency: int = 1,
  requests_per_second: float | None = None,
  request_size: int = 1,
  kind: str = "logits",
) -> Teacher:
  """Any function from n images or texts to float[n, classes]: an API, say.

  A mistake in the function (one of `BUGS`) is raised at once; any other error
  counts as an outage, and the request is sent again.

  Args:
    spec: `package.module:function`.
    retries: how often a failed request is sent again.
    back_off: seconds before the first retry; doubled before each next one.
    concurrency: requests in flight at once, each in its own thread.
    requests_per_second: upper limit, retries included; None or 0 is none.
    request_size: images per request.
    kind: of the answers, "logits", "log_probs" or "probs".

  Raises:
    UserError: the function does not exist, or a number is out of range.
  """
  function = imports.import_function(spec, "the teacher")
  return from_function(
    function,
    f"callable:{spec}",
    retries=retries,
    back_off=back_off,
    concurrency=concurrency,
    requests_per_second=requests_per_second,
    request_size=request_size,
    kind=kind,
  )


def from_function(
  function: AnswerFunction,
  name: str,
  *,
  retries: int = 3,
  back_off: float = 1.0,
  concurrency: int = 1,
  requests_per_second: float | None = None,
  request_size: int = 1,
  kind: str = "logits",
) -> Teacher:
  """A function object in place of a spec; see `from_callable`.

  Args:
    function: uint8[n, h, w, c], or a list of n texts -> float[n, classes].
    name: identifies the teacher in a table.
    retries: how often a failed request is sent again.
    back_off: seconds before the first retry; doubled before each next one.
    concurrency: requests in flight at once, each in its own thread.
    requests_per_second: upper limit, retries included; None or 0 is none.
    request_size: images per request.
    kind: of the answers, "logits", "log_probs" or "probs".

  Raises:
    UserError: a number is out of range.
  """
  if min(concurrency, request_size, retries + 1) < 1 or back_off < 0:
    raise UserError(
      "teacher.concurrency and teacher.request_size must be at least 1,"
      " teacher.retries and teacher.back_off at least 0"
    )
  wait = _limiter(requests_per_second)
  failures = Failures()

  def ask(asked: Any, *, needs: frozenset[str] = frozenset()) -> Answers:
    del needs  # a black box gives logits only
    for attempt in range(retries + 1):
      wait()
      try:
        return Answers(function(asked))
      except UserError:
        raise
      except BUGS as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
          f"the teacher {name} has a mistake in {place.filename}, line"
          f" {place.lineno}: {redacted.told(error)}; its answers so far are"
          " kept"
        ) from error
      except (Exception, SystemExit) as error:  # a client may call sys.exit
        failures.add()
        if attempt == retries:
          raise UserError(
            f"the teacher {name} failed {retries + 1} times"
            f" ({redacted.told(error)}): its answers so far are kept, the same"
            " command asks for the rest; failed requests do not count as calls,"
            " but a service may bill them: teacher.retries=0 sends each once"
          ) from error
        time.sleep(back_off * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")

  return Teacher(
    name=name,
    ask=ask,
    kind=kind,
    request_size=request_size,
    concurrency=concurrency,
    failures=failures,
  )


def _limiter(requests_per_second: float | None) -> Callable[[], None]:
  """Makes a function that blocks until the next request may be sent."""
  if not requests_per_second:
    return lambda: None
  guard = threading.Lock()
  free = time.monotonic()

  def wait():
    nonlocal free
    with guard:
      start = max(free, time.monotonic())
      free = start + 1 / requests_per_second
    time.sleep(max(0.0, start - time.monotonic()))

  return wait
