"""The machine: durable files, the processes of a run, kept compilations.

Knows nothing of teachers, students or tables; every other room may use it.
"""

from ckd_jax.system import compile_cache, files, hosts

__all__ = ["compile_cache", "files", "hosts"]
