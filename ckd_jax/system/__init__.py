"""The machine: durable files, the processes of a run, kept compilations.

Knows nothing of teachers, students or tables; every other room may use it.
Its public names are its modules, used with their names (`files.write`).
"""

from ckd_jax.system import (
  compile_cache,
  console,
  devices,
  files,
  hosts,
  imports,
)

__all__ = ["compile_cache", "console", "devices", "files", "hosts", "imports"]
