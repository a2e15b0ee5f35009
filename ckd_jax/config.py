"""What a config may say: reading it from the command line, and checking it."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from ckd_jax import augment, methods, models, optimizer
from ckd_jax.errors import UserError, nearest

SOURCES = ("callable", "checkpoint", "none", "table", "torch", "train")
VIEWS = ("augmented", "clean")
STUDENT_VIEWS = ("fresh", "table")
DTYPES = ("bfloat16", "float32")


def hyper(method: str) -> ml_collections.ConfigDict:
  """The hyper-parameters of a method at their published defaults.

  Raises:
    UserError: no method has this name.
  """
  try:
    return ml_collections.ConfigDict(methods.defaults(method))
  except ValueError as error:
    raise UserError(str(error)) from error


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
  flat = flatten(config)
  for key, text in options.items():
    if key not in flat:
      raise UserError(f"unknown config key {key!r}: {nearest(key, flat)}")
    old = flat[key]
    try:
      value = text if old is None or isinstance(old, str) else json.loads(text)
      value = float(value) if isinstance(old, float) else value
      config.update_from_flattened_dict({key: value})
    except (TypeError, ValueError) as error:
      raise UserError(
        f"{key}={text}: should be {type(old).__name__}, like {old!r}"
      ) from error


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
  path, arg = _config_flag(argv)
  original = _get_config(path, arg)
  known = flatten(original)
  for item in argv:
    if not item.startswith(("--config.", "-config.")):
      continue
    key, _, value = item.lstrip("-").removeprefix("config.").partition("=")
    bare = key.removeprefix("no")
    if key not in known and bare not in known:
      raise UserError(f"unknown config key {key!r}: {nearest(key, known)}")
    if key == "method" and value != original.method:
      known_names = methods.names()
      name = value if value in known_names else "NAME"
      hint = "" if value in known_names else f" ({nearest(value, known_names)})"
      raise UserError(
        f"--config.method={value}: choose the method with its "
        f"hyper-parameters, --config={path}:method={name}{hint}"
      )
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "", flag_values=values)
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  try:
    rest = values(["ckd_jax", *argv])[1:]
    config = values.config
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
  ) as error:
    raise UserError(f"{str(error).splitlines()[0]}") from error
  if rest:
    raise UserError(f"{rest[0]!r} is not a flag: use --config.key=value")
  check(config)
  workdir = values.workdir
  if workdir is None:
    workdir = f"runs/{pathlib.Path(path).stem}-{digest(config)}"
  return config, workdir


def _config_flag(argv: Sequence[str]) -> tuple[str, str]:
  for place, item in enumerate(argv):
    name, equals, value = item.partition("=")
    if name in ("--config", "-config"):
      if not equals:
        value = argv[place + 1] if place + 1 < len(argv) else ""
      path, _, arg = value.partition(":")
      return path, arg
  raise UserError("no config: give --config=configs/digits.py")


def _get_config(path: str, arg: str) -> ml_collections.ConfigDict:
  if not pathlib.Path(path).is_file():
    raise UserError(f"no config file {path!r}: configs/ holds the ones we have")
  try:
    spec = importlib.util.spec_from_file_location("_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)
  except UserError:
    raise
  except Exception as error:
    raise UserError(
      f"{path} does not load: {type(error).__name__}: {error}"
    ) from error


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses, before anything is loaded or paid, what can never run."""
  try:
    methods.make(config.method, **config.hyper)
  except (TypeError, ValueError) as error:
    raise UserError(f"method {config.method}: {error}") from error
  for key, choices in (
    ("schedule", optimizer.SCHEDULES),
    ("dtype", DTYPES),
    ("augment", augment.CHOICES),
    ("student_view", STUDENT_VIEWS),
    ("teacher.source", SOURCES),
    ("teacher.view", VIEWS),
  ):
    value = _value(config, key)
    if value not in choices:
      raise UserError(f"unknown {key} {value!r}: {nearest(value, choices)}")
  _check_network("student", config.student)
  if config.teacher.source in ("train", "torch"):
    _check_network("teacher.name", config.teacher.name)
  for key in ("batch_size", "steps", "eval_every", "checkpoint_every"):
    if _value(config, key) <= 0:
      raise UserError(f"{key} is {_value(config, key)}: it must be above 0")
  if not config.optimizer.learning_rate > 0:
    rate = config.optimizer.learning_rate
    raise UserError(f"optimizer.learning_rate is {rate}: it must be above 0")
  if not 0 <= config.val_fraction < 1:
    raise UserError(
      f"val_fraction is {config.val_fraction}: it must be in [0, 1)"
    )
  if config.schedule == "plateau" and config.val_fraction == 0:
    raise UserError(
      "schedule 'plateau' watches the validation accuracy: set val_fraction"
    )
  if config.budget <= 0:
    raise UserError(f"budget is {config.budget}: it must be above 0")
  needs = methods.make(config.method, **config.hyper).needs
  source, path = config.teacher.source, config.teacher.path
  if needs and source == "none":
    raise UserError(
      f"method {config.method!r} needs a teacher: set teacher.source to one "
      f"of {', '.join(name for name in SOURCES if name != 'none')}"
    )
  if source in ("checkpoint", "table", "torch", "callable") and not path:
    raise UserError(f"teacher.source {source!r} needs teacher.path")
  if config.teacher.live and source in ("table", "callable"):
    raise UserError(
      f"teacher.live needs a local teacher; {source!r} cannot answer in a step"
    )


def _check_network(key: str, name: str) -> None:
  if ":" not in name and name not in models.names():
    raise UserError(f"unknown {key} {name!r}: {nearest(name, models.names())}")


def _value(config, key: str):
  for part in key.split("."):
    config = config[part]
  return config
