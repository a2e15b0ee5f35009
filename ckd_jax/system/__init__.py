"""The machine: durable files, processes of a run, compiled programs.

It knows no teachers, students or tables, and every other room may use it. Its
public names are its modules (`files.write`).
"""

from ckd_jax.system import (
  compile_cache,
  console,
  devices,
  files,
  hosts,
  imports,
  redacted,
  sealed,
  signals,
  tensors,
)

__all__ = [
  "compile_cache",
  "console",
  "devices",
  "files",
  "hosts",
  "imports",
  "redacted",
  "sealed",
  "signals",
  "tensors",
]
