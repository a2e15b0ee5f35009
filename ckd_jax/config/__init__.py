"""What a config may say: reading it from the command line, and checking it."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from ckd_jax import methods
from ckd_jax.config import rules
from ckd_jax.errors import UserError, nearest


def hyper(method: str) -> ml_collections.ConfigDict:
  """The hyper-parameters of a method at their published defaults.

  Raises:
    UserError: no method has this name.
  """
  try:
    return ml_collections.ConfigDict(methods.defaults(method))
  except ValueError as error:
    raise UserError(str(error)) from error


def student_view(method: str) -> str:
  """`table` for methods on maps: a cached map matches no other view."""
  maps = {"maps", "preactivations"} & methods.make(method).needs
  return "table" if maps else "fresh"


def pruned(method: str) -> float:
  """R2KD's share of weights to leave out, for methods with a second teacher."""
  return 0.1 if methods.make(method).max_teachers > 1 else 0.0


def parse(arg: str, **defaults: str) -> dict[str, str]:
  """`method=icd,budget=4000` after the colon of --config, over `defaults`."""
  options = dict(defaults)
  for item in filter(None, (arg or "").split(",")):
    key, equals, value = item.partition("=")
    if not equals:
      raise UserError(f"{item!r} after the config's name: write key=value")
    options[key] = value
  return options


def override(
  config: ml_collections.ConfigDict, options: dict[str, str]
) -> None:
  """Sets keys of `config`, given as text, with the types that they have."""
  known = flatten(config)
  for key, text in options.items():
    if key not in known:
      raise UserError(f"unknown config key {key!r}: {nearest(key, known)}")
    parent, _, last = key.rpartition(".")
    kind = rules.value(config, parent).get_type(last)
    try:
      config.update_from_flattened_dict({key: _typed(text, kind)})
    except (TypeError, ValueError) as error:
      raise UserError(
        f"{key}={text}: should be {kind.__name__}, like {known[key]!r}"
      ) from error


def _typed(text: str, kind: type):
  if kind is str:
    return text
  value = json.loads(text.lower() if kind is bool else text)
  # A bool is an int to Python: true is no budget.
  if isinstance(value, bool) != (kind is bool):
    raise TypeError
  return float(value) if kind is float else value


def flatten(config, prefix: str = "") -> dict[str, object]:
  """{'optimizer.momentum': 0.9, ...}."""
  flat = {}
  for key in config:
    value = config[key]
    if isinstance(value, ml_collections.ConfigDict | dict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def to_json(config: ml_collections.ConfigDict) -> dict:
  """The config as plain JSON values (tuples become lists)."""
  return json.loads(json.dumps(config.to_dict()))


def digest(config: ml_collections.ConfigDict) -> str:
  """Eight characters that name this config."""
  text = json.dumps(to_json(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(old: dict, new: dict) -> list[str]:
  """One line for each key whose value is not the same."""
  old, new = flatten(old), flatten(new)
  lines = []
  for key in sorted(old.keys() | new.keys()):
    before, after = old.get(key, "absent"), new.get(key, "absent")
    if before != after:
      lines.append(f"{key}: {before} -> {after}")
  return lines


def from_flags(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, str]:
  """The locked config and the work directory that a command line names.

  Raises:
    UserError: anything in the command line that cannot be.
  """
  path, arg, rest = _split(argv)
  config = _get_config(path, arg)
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
    workdir = f"runs/{pathlib.Path(path).stem}-{digest(config)}"
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


def _get_config(path: str, arg: str) -> ml_collections.ConfigDict:
  file = pathlib.Path(path)
  if not file.is_file() or file.suffix != ".py":
    found = [str(near) for near in file.parent.glob("*.py")]
    hint = nearest(path, found) if found else "give one like configs/digits.py"
    raise UserError(f"no config file {path!r}: {hint}")
  try:
    spec = importlib.util.spec_from_file_location("_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(arg)
  except UserError:
    raise
  except Exception as error:  # the user's code may raise anything
    raise UserError(
      f"{path} does not load: {type(error).__name__}: {error}"
    ) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"get_config of {path} returned a {type(config).__name__}: return an"
      " ml_collections.ConfigDict"
    )
  rules.check_complete(config, path)
  return config


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


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses, before anything is loaded or paid, what can never run.

  Raises:
    UserError: a value is out of its range, or two do not go together.
  """
  rules.check_values(config)
  try:
    method = methods.make(config.method, **config.hyper)
  except (TypeError, ValueError) as error:
    raise UserError(f"method {config.method}: {error}") from error
  rules.check_together(config, method)
