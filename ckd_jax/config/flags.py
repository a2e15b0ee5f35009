"""From a command line to a checked config and a work directory."""

from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from ckd_jax import methods
from ckd_jax.config.files import find, load_file
from ckd_jax.config.together import check
from ckd_jax.config.values import digest, flatten
from ckd_jax.errors import UserError, nearest


def from_flags(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, str]:
  """The locked config and the work directory that a command line names.

  Raises:
    UserError: anything in the command line that cannot be.
  """
  path, arg, rest = _split(argv)
  config = load_file(path, arg)
  _check_keys(config, path, rest)
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=["ckd_jax", *rest]
    )
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    _, *strange = values(["ckd_jax", *rest])
  except (
    flags.Error,
    AttributeError,
    KeyError,
    SyntaxError,
    TypeError,
    ValueError,
  ) as error:
    raise UserError(str(error).splitlines()[0]) from error
  if strange:
    raise UserError(f"{strange[0]!r} is not a flag: use --config.key=value")
  check(config)
  workdir = values.workdir
  if workdir == "":
    raise UserError("--workdir= is empty: name a directory, or leave it out")
  if workdir is None:
    workdir = f"runs/{find(path).stem}-{digest(config)}"
  return config, workdir


def _split(argv: Sequence[str]) -> tuple[str, str, list[str]]:
  """The file of --config=FILE:ARG, its argument, and all other flags."""
  spec, rest = None, []
  items = iter(argv)
  for item in items:
    name, equals, value = item.partition("=")
    if name in ("--config", "-config"):
      spec = value if equals else next(items, "")
    else:
      rest.append(item)
  if not spec:
    raise UserError("no config: give --config=configs/digits.py")
  path, _, arg = spec.partition(":")
  return path, arg, rest


def _check_keys(config, path: str, argv: Sequence[str]) -> None:
  """Names the key nearest to a wrong one, and how a method is chosen."""
  known = flatten(config)
  for place, item in enumerate(argv):
    flag, equals, value = item.lstrip("-").partition("=")
    no_or_not, dot, key = flag.partition("config.")
    if not item.startswith("-") or not dot or no_or_not not in ("", "no"):
      continue
    if key not in known:
      raise UserError(f"unknown config key {key!r}: {nearest(key, known)}")
    if key != "method":
      continue
    if not equals:
      value = " ".join(argv[place + 1 : place + 2])
    if value != config.method:
      is_known = value in methods.names()
      hint = "" if is_known else f" ({nearest(value, methods.names())})"
      raise UserError(
        f"--config.method={value}: choose the method with its"
        f" hyper-parameters, --config={path}:method="
        f"{value if is_known else 'NAME'}{hint}"
      )
