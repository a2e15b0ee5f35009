"""One run on many hosts: joining, waiting, agreeing, leaving.

Every process runs the same program on the same config; the first one asks the
teacher, writes and prints. All of them must see the folder of the run.
"""

import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from ckd_jax.errors import UserError
from ckd_jax.system import files

Result = TypeVar("Result")

_FLAGS = ("hosts", "coordinator", "processes", "process")
# A process that is silent for this long is gone, and the others stop.
_SILENCE = 30  # seconds


def join(argv: Sequence[str]) -> list[str]:
  """Connects to the other processes, by flags or the cluster's environment.

  Args:
    argv: with `--hosts=auto` (TPU pods, SLURM, Open MPI, Kubernetes), or with
      `--coordinator=HOST:PORT --processes=N --process=I`, or with neither.

  Returns:
    What remains of argv.

  Raises:
    UserError: the flags are incomplete, or no other process connected.
  """
  found, rest = {}, []
  for item in argv:
    name, equals, value = item.partition("=")
    if name.startswith("--") and name[2:] in _FLAGS and equals:
      found[name[2:]] = value
    else:
      rest.append(item)
  if not found:
    return rest
  # Its handler of SIGTERM would replace ours, and only take a note.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      **_settings(found),
      heartbeat_timeout_seconds=_SILENCE,
      shutdown_timeout_seconds=_SILENCE,
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(f"the processes did not meet: {reason}") from error
  if not first():
    sys.stdout = open(os.devnull, "w")
  return rest


def _settings(found: dict[str, str]) -> dict:
  """The flags as arguments of `jax.distributed.initialize`."""
  explicit = sorted(found.keys() - {"hosts"})
  if "hosts" in found:
    if found["hosts"] != "auto" or explicit:
      raise UserError(
        "write --hosts=auto alone, or --coordinator=HOST:PORT --processes=N "
        "--process=I"
      )
    return {}
  if lacking := sorted({*_FLAGS[1:]} - found.keys()):
    raise UserError(
      f"--{explicit[0]} needs --{' and --'.join(lacking)} beside it"
    )
  try:
    count, index = int(found["processes"]), int(found["process"])
  except ValueError as error:
    raise UserError("--processes and --process are whole numbers") from error
  if not 0 <= index < count:
    raise UserError(f"--process={index} is not one of 0 to {count - 1}")
  return {
    "coordinator_address": found["coordinator"],
    "num_processes": count,
    "process_id": index,
  }


def many() -> bool:
  """Whether there are other processes; starts no device to find out."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
  """Whether this is the process that asks, writes and prints."""
  return not many() or jax.process_index() == 0


def in_turn(folder: epath.PathLike, work: Callable[[], Result]) -> Result:
  """Calls `work` in the first process, and then in all others.

  They wait without the network, since asking a teacher can take days.

  Args:
    folder: seen by all processes.
    work: () -> result; the files that it writes are there for the others.

  Returns:
    The result of this process.

  Raises:
    UserError: raised by `work`, in the first process or in this one.
  """
  if not many():
    return work()
  token = np.frombuffer(secrets.token_bytes(8), np.uint8)
  token = np.asarray(multihost_utils.broadcast_one_to_all(token))
  mark = epath.Path(folder) / f".{token.tobytes().hex()}"
  if first():
    try:
      result = work()
    except BaseException as error:
      reason = str(error) or type(error).__name__
      files.write(mark, reason.encode())  # whole, or not there yet
      raise
    files.write(mark, b"")
  else:
    while not mark.exists():  # if the first one dies, JAX ends this one too
      time.sleep(0.2)
    if reason := mark.read_text():
      raise UserError(reason)
    result = work()
  barrier()
  if first():
    mark.unlink()
  return result


def barrier() -> None:
  """Waits until every process is here."""
  if many():
    multihost_utils.sync_global_devices("ckd_jax")


def anywhere(here: bool) -> bool:
  """Whether it holds in any process; all of them meet here.

  Args:
    here: whether it holds in this one.
  """
  if not many():
    return here
  return bool(np.any(multihost_utils.process_allgather(np.bool_(here))))


def assert_equal(what: str, value: str) -> None:
  """Stops every process if their values differ.

  Args:
    what: name of the value, for the message.
    value: a digest of any length.

  Raises:
    UserError: the values differ.
  """
  if not many():
    return
  own = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
  found = np.asarray(multihost_utils.process_allgather(own))
  others = np.flatnonzero((found != found[0]).any(-1))
  if len(others):
    raise UserError(
      f"process {others[0]} has other {what} than process 0: give all of them "
      "the same files and the same config"
    )


def put_global(tree, sharding):
  """Puts equal arrays of all processes on all devices.

  Args:
    tree: of arrays and random keys, equal in every process.
    sharding: for every leaf of the result.
  """
  if not many():
    return jax.device_put(tree, sharding)

  def place(leaf):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      return jax.device_put(leaf, sharding)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      data = place(jax.random.key_data(leaf))
      return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(
      leaf.shape, sharding, lambda where: leaf[where]
    )

  return jax.tree.map(place, tree)


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Turns a collective that failed because a process died into one line.

  Raises:
    UserError: the other processes cannot go on.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not many():
      raise
    raise _lost(error) from error


def check_lost(error: Exception) -> None:
  """Tells a process that died at a meeting from a disk that failed.

  Args:
    error: an OSError of code that writes, and in which all processes meet.

  Raises:
    UserError: another process is gone.
  """
  if many() and "CoordinationService" in str(error):
    raise _lost(error) from error


def _lost(error: Exception) -> UserError:
  return UserError(
    "another process is gone, or the network to it: start all of them again, "
    f"the run resumes ({str(error).splitlines()[0][:200]})"
  )


def leave(status: int) -> None:
  """Ends the process; after a failure without waiting for the others.

  Args:
    status: exit status, 0 for success.
  """
  if status and many():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)
