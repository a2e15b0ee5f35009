"""A Ctrl-C or a SIGTERM ends training with a checkpoint of the step it is at.

Steps are launched several at a time, and a run that stopped between two
launches goes on with the launches that it would have made: bit for bit the same
run. Several processes stop where they meet anyway, at the next evaluation or
checkpoint, since all of them have to write it.
"""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

from ckd_jax.system import console, hosts, signals


class Stop:
  """Whether training was told to stop.

  Args:
    waiting: signals that this process has received.
  """

  def __init__(self, waiting: list[int]):
    self._waiting = waiting

  def now(self) -> bool:
    """Whether to launch nothing more; of several processes none decides it."""
    return bool(self._waiting) and not hosts.many()

  def agreed(self) -> bool:
    """Whether any process was told to; all of them meet here."""
    return hosts.anywhere(bool(self._waiting))

  def end(self) -> NoReturn:
    """Stops, once what had to be saved is saved."""
    hosts.barrier()  # no process leaves before all are done
    raise KeyboardInterrupt


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
  """A block that ends itself when a signal came; a second one does not wait."""
  with signals.held_back(_tell) as waiting:
    yield Stop(waiting)


def _tell() -> None:
  when = "at the next validation or checkpoint" if hosts.many() else "now"
  # A signal may come in the middle of another line's printing.
  with contextlib.suppress(RuntimeError):
    console.progress(
      f"stopping: a checkpoint is written {when}; Ctrl-C again does not wait"
    )
