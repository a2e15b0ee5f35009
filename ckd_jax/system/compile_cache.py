"""Keeps compiled programs for later runs.

JAX writes the entries of its cache in place, so a kill leaves half an entry,
which breaks the next run. Here every process has a folder of its own, which
begins as links to the shared entries; new entries are linked back, whole, at
every checkpoint and when the process ends. A kill in between adds nothing.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

LIMIT = 4 * 2**30  # bytes; beyond it the oldest programs are deleted

# In `persistent_cache`: (own folder, shared folder, entries in both).
_open: list[tuple[pathlib.Path, pathlib.Path, set[str]]] = []


def folder() -> pathlib.Path:
  """The shared folder for this version of JAX and this kind of CPU."""
  facts = f"{jax.__version__} {jaxlib.__version__} {_processor()}"
  base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  name = hashlib.sha256(facts.encode()).hexdigest()[:12]
  return pathlib.Path(base) / "ckd_jax" / "compiled" / name


def _processor() -> str:
  """CPU features, part of the key: a shared home may serve many machines."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith(("flags", "Features")):
        return line
  return " ".join(os.uname())


@contextlib.contextmanager
def persistent_cache(place: pathlib.Path | None = None) -> Iterator[None]:
  """Reads compiled programs from a shared folder, and adds new ones.

  Does nothing if JAX has a folder already (JAX_COMPILATION_CACHE_DIR) or if
  none can be made: a run works without a cache.

  Args:
    place: the shared folder; None is `folder()`.
  """
  if jax.config.jax_compilation_cache_dir:
    yield
    return
  place = place or folder()
  with contextlib.ExitStack() as stack:
    try:
      place.mkdir(parents=True, exist_ok=True, mode=0o700)
      own = stack.enter_context(_own(place))
    except OSError:
      yield
      return
    # XLA's other caches would put the folder's name into every key.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    _use(own)
    _open.append((own, place, {entry.name for entry in own.glob("*-cache")}))
    try:
      yield
    finally:
      _use(None)
      share()
      _open.pop()


def share() -> None:
  """Links new entries back; call it when nothing is being compiled."""
  for own, place, known in _open:
    with contextlib.suppress(OSError):
      known |= _publish(own, place, known)


def _use(folder: pathlib.Path | None) -> None:
  """Points JAX to a folder; without the reset it keeps the one before."""
  jax.config.update("jax_compilation_cache_dir", folder and str(folder))
  compilation_cache.reset_cache()


@contextlib.contextmanager
def _own(place: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder for this process alone, with links to all entries of `place`."""
  _sweep(place)
  own = pathlib.Path(tempfile.mkdtemp(prefix="process-", dir=place))
  with open(own / "lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_SH)  # held while the process lives
    for entry in place.glob("*-cache"):
      with contextlib.suppress(OSError):  # another run may delete it now
        os.link(entry, own / entry.name)
    try:
      yield own
    finally:
      shutil.rmtree(own, ignore_errors=True)


def _sweep(place: pathlib.Path) -> None:
  """Removes the folders of processes that were killed."""
  for own in place.glob("process-*"):
    with contextlib.suppress(OSError), open(own / "lock") as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      shutil.rmtree(own, ignore_errors=True)


def _publish(own: pathlib.Path, place: pathlib.Path, known=frozenset()) -> set:
  """Links entries that are not `known` back, and deletes the oldest.

  Returns:
    The names of the entries that both folders hold now.
  """
  found = {entry.name for entry in own.glob("*-cache")}
  for name in found - known:
    with contextlib.suppress(FileExistsError):
      os.link(own / name, place / name)
  entries = sorted(place.glob("*-cache"), key=lambda path: path.stat().st_mtime)
  total = sum(path.stat().st_size for path in entries)
  for entry in entries:
    if total <= LIMIT:
      break
    total -= entry.stat().st_size
    entry.unlink(missing_ok=True)
  return found
