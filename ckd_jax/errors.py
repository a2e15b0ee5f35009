"""A user's mistake is one line on stderr and exit status 2, never a traceback.

Code that finds such a mistake raises `UserError`; every command of the package
runs inside `command`, the only place that prints it.
"""

import contextlib
import difflib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence


class UserError(Exception):
  """A mistake of the user: what is wrong and what to do, in one line.

  Args:
    message: names and texts of others in it may hold line ends, which go.
  """

  def __init__(self, message: object):
    super().__init__(" ".join(str(message).split()))


_SOON = 0.05  # seconds until a signal that was dropped is sent again

# What reading the facts of a damaged .json file raises.
DAMAGED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


def nearest(name: str, choices: Iterable[str]) -> str:
  """Suggests the most similar of `choices`, or lists them all."""
  choices = sorted(choices)
  close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
  if close:
    return f"did you mean {close[0]!r}?"
  return f"choose one of {', '.join(choices)}"


def command(main: Callable[[list[str]], None], argv: Sequence[str]) -> int:
  """Runs `main(argv)`; returns the exit status. `--debug` shows tracebacks.

  A SIGTERM ends it as a Ctrl-C does, in one line.
  """
  argv = list(argv)
  debug = "--debug" in argv
  if debug:
    argv.remove("--debug")
  terminated: list[int] = []
  try:
    with _terminable(terminated):
      main(argv)
  except UserError as error:
    if debug:
      traceback.print_exc()
    _tell(f"ckd_jax: error: {error}")
    return 2
  except KeyboardInterrupt as stop:
    message = str(stop) or "the same command resumes"
    _tell(f"ckd_jax: stopped; {message}")
    return 128 + (terminated or [signal.SIGINT])[0]
  return _printed()


def _tell(line: str) -> None:
  if sys.stderr:  # None where it is closed
    with contextlib.suppress(OSError):
      print(line, file=sys.stderr, flush=True)


def _printed() -> int:
  """The status of a command that did its work: was its output written?"""
  try:
    if sys.stdout:
      sys.stdout.flush()
  except OSError as error:
    _tell(f"ckd_jax: error: cannot write the output: {error.strerror}")
    # Or Python would try again at its end, and say so in a traceback.
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 2
  return 0


@contextlib.contextmanager
def _terminable(seen: list[int]) -> Iterator[None]:
  """Turns a SIGTERM into a KeyboardInterrupt, and notes it in `seen`.

  Python drops what is raised inside a callback of its garbage collector, and
  JAX has one: a signal that came then is sent again.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def stop(number, frame):
    seen.append(number)
    raise KeyboardInterrupt

  def dropped(late):
    if not isinstance(late.exc_value, KeyboardInterrupt):
      hook(late)
      return
    number = (seen or [signal.SIGINT])[-1]
    again = threading.Timer(
      _SOON, signal.pthread_kill, (threading.main_thread().ident, number)
    )
    again.daemon = True
    again.start()

  before = signal.signal(signal.SIGTERM, stop)
  hook, sys.unraisablehook = sys.unraisablehook, dropped
  try:
    yield
  finally:
    sys.unraisablehook = hook
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
