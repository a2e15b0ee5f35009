"""A case compiled as users would: optimised, and never from a cache."""

from typing import Any

import jax

from ckd_jax import ahead

_AS_USERS = {
  "jax_platforms": "cpu",
  "jax_disable_most_optimizations": False,  # other tests compile fast instead
  "jax_enable_compilation_cache": False,
}


def figures(case: ahead.Case) -> dict[str, Any]:
  """The figures of a case."""
  before = {name: jax.config.values[name] for name in _AS_USERS}
  for name, value in _AS_USERS.items():
    jax.config.update(name, value)
  try:
    return ahead.compile_case(case)[0]
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
