"""A user's mistake is one line on stderr and exit status 2, never a traceback.

Code that finds such a mistake raises `UserError`; every command of the package
runs inside `command`, the only place that prints it.
"""

import contextlib
import difflib
import functools
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


class UserError(Exception):
  """A mistake of the user: what is wrong and what to do, in one line.

  Args:
    message: names and texts of others in it may hold line ends, which go.
  """

  def __init__(self, message: object):
    super().__init__(" ".join(str(message).split()))


_SOON = 0.05  # seconds until a signal that cannot be told now is sent again
_IMPORTED = 30.0  # seconds that a signal waits for imports at the most

# How the error of etils begins where the package for gs:// or s3:// is missing.
_BUCKETS = "Please install "

# What reading the facts of a damaged .json file raises.
DAMAGED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


def nearest(name: str, choices: Iterable[str]) -> str:
  """Suggests the most similar of `choices`, or lists them all."""
  choices = sorted(choices)
  close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
  if close:
    return f"did you mean {close[0]!r}?"
  return f"choose one of {', '.join(choices)}"


class _Unwritable(OSError):
  """Standard output cannot be written."""


class _Output:
  """A stream whose errors are known from those of other files."""

  def __init__(self, stream: Any):
    self._stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    with _told_apart():
      return self._stream.write(text)

  def flush(self) -> None:
    with _told_apart():
      self._stream.flush()


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise _Unwritable(*error.args) from error


def command(main: Callable[[list[str]], None], argv: Sequence[str]) -> int:
  """Runs `main(argv)`; returns the exit status. `--debug` shows tracebacks.

  A SIGTERM ends it as a Ctrl-C does, in one line.
  """
  argv = list(argv)
  debug = "--debug" in argv
  if debug:
    argv.remove("--debug")
  signalled: list[int] = []
  stdout = sys.stdout  # None where it is closed
  output = stdout and _Output(stdout)
  try:
    with _terminable(signalled), contextlib.redirect_stdout(output):
      main(argv)
      if output:
        output.flush()
  except UserError as error:
    if debug:
      traceback.print_exc()
    _tell(f"ckd_jax: error: {error}")
    return 2
  except _Unwritable as error:
    _tell(f"ckd_jax: error: cannot write the output: {error.strerror}")
    return 2
  except ImportError as error:
    if debug or not str(error).startswith(_BUCKETS):
      raise
    _tell(f"ckd_jax: error: {error}")
    return 2
  except KeyboardInterrupt as stop:
    message = str(stop) or "the same command resumes"
    _tell(f"ckd_jax: stopped; {message}")
    return 128 + max([signal.SIGINT, *signalled])  # SIGTERM, if it came
  finally:
    if stdout:
      _flush_or_drop(stdout)
  return 0


def _tell(line: str) -> None:
  if sys.stderr:  # None where it is closed
    with contextlib.suppress(OSError):
      print(line, file=sys.stderr, flush=True)


def _flush_or_drop(stream: Any) -> None:
  """Or Python would try again at its end, and say so in a traceback."""
  try:
    stream.flush()
  except OSError:
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def _terminable(seen: list[int]) -> Iterator[None]:
  """Turns a SIGTERM into a KeyboardInterrupt, and notes signals in `seen`.

  Python drops what is raised inside a callback of its garbage collector, and
  JAX has one; a module whose import is broken off leaves others that cannot be
  imported any more, and an extension may crash. A signal that comes then is
  sent again.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  begun = functools.cache(time.monotonic)  # when the first one came

  def stop(number, frame):
    seen.append(number)
    if _imports(frame) and time.monotonic() - begun() < _IMPORTED:
      _again(number)
    else:
      raise KeyboardInterrupt

  def dropped(late):
    if isinstance(late.exc_value, KeyboardInterrupt):
      _again((seen or [signal.SIGINT])[-1])
    else:
      hook(late)

  before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
  hook, sys.unraisablehook = sys.unraisablehook, dropped
  try:
    yield
  finally:
    sys.unraisablehook = hook
    for number, handler in before.items():
      signal.signal(number, handler or signal.SIG_DFL)


def _imports(frame: types.FrameType | None) -> bool:
  """Whether the command, as far as this frame, is importing a module."""
  while frame and frame.f_code is not command.__code__:
    if frame.f_code.co_filename.startswith("<frozen importlib"):
      return True
    frame = frame.f_back
  return False


def _again(number: int) -> None:
  """Sends the signal to the main thread, soon."""
  ident = threading.main_thread().ident
  again = threading.Timer(_SOON, signal.pthread_kill, (ident, number))
  again.daemon = True
  again.start()
