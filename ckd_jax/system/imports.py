"""Imports functions named as `package.module:function`."""

import importlib
from collections.abc import Callable

from ckd_jax.errors import UserError, nearest
from ckd_jax.system import redacted


def import_function(spec: str, what: str) -> Callable:
  """Imports the function that `spec` names.

  Args:
    spec: `package.module:function`.
    what: the role of the function, "the teacher", for messages.

  Raises:
    UserError: the module cannot be imported, or has no such function.
  """
  module, colon, function = spec.partition(":")
  if not (module and colon and function) or "/" in spec:
    raise UserError(
      f"{redacted.shown(repr(spec))} does not name a function: write"
      " package.module:function"
    )
  try:
    namespace = vars(importlib.import_module(module))
  except (Exception, SystemExit) as error:  # the user's code may raise anything
    raise UserError(
      f"cannot import {module!r} of {what} {spec!r}: {redacted.told(error)}"
    ) from error
  functions = [name for name, value in namespace.items() if callable(value)]
  if function not in functions:
    hint = nearest(function, functions) if functions else "it has none"
    raise UserError(
      f"{module!r} of {what} {spec!r} has no function {function!r}: {hint}"
    )
  return namespace[function]
