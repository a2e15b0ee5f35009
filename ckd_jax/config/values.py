"""Sets keys of a config from text; flattens, compares and digests configs."""

import hashlib
import json
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from ckd_jax.config import rules
from ckd_jax.errors import UserError, nearest


def parse(arg: str, **defaults: str) -> dict[str, str]:
  """`method=icd,budget=4000` after the colon of --config, over `defaults`."""
  options = dict(defaults)
  for item in filter(None, (arg or "").split(",")):
    key, equals, value = item.partition("=")
    if not equals:
      raise UserError(f"{item!r} after the config's name: write key=value")
    options[key] = value
  return options


def override(config: Any, options: dict[str, str]) -> None:
  """Sets keys from text, converted to the types of the keys.

  Args:
    config: a ConfigDict; changed in place.
    options: key -> text.

  Raises:
    UserError: there is no such key, or the text is of another type.
  """
  fill_optional(config)
  known: dict[str, Any] = flatten(config)
  for key, text in options.items():
    if key not in known:
      raise UserError(f"unknown config key {key!r}: {nearest(key, known)}")
    parent, _, last = key.rpartition(".")
    kind = rules.value(config, parent).get_type(last)
    try:
      config.update_from_flattened_dict({key: _typed(text, kind)})
    except (RecursionError, TypeError, ValueError) as error:
      raise UserError(
        f"{key}={text}: should be {kind.__name__}, like {known[key]!r}"
      ) from error


def _typed(text: str, kind: type):
  if kind is str:
    return text
  value = json.loads(text.lower() if kind is bool else text)
  # Python counts a bool as an int, but `true` is no budget.
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


def fill_optional(config: Any) -> None:
  """Adds the optional keys that a config leaves out, at their defaults."""
  for key, default in rules.optional(config).items():
    parent, _, last = key.rpartition(".")
    _make_section(config, parent)
    section = rules.value(config, parent)
    if last not in section:
      with section.unlocked():
        section[last] = placeholder(int) if default is None else default


def _make_section(config: Any, key: str) -> None:
  """Adds an empty section where it is missing; the one around it is there."""
  around, _, last = key.rpartition(".")
  section = rules.value(config, around)
  if last and last not in section:
    with section.unlocked():
      section[last] = ml_collections.ConfigDict()


def set_value(config: Any, key: str, value: Any) -> None:
  """Sets one key.

  Args:
    config: a ConfigDict; changed in place.
    key: dotted, `optimizer.learning_rate`.
    value: of the same type as the present one.

  Raises:
    UserError: there is no such key, or the value is of another type.
  """
  known = flatten(config)
  if key not in known:
    raise UserError(f"unknown config key {key!r}: {nearest(key, known)}")
  try:
    with config.unlocked():
      config.update_from_flattened_dict({key: value})
  except (TypeError, ValueError) as error:
    raise UserError(
      f"{key}={value!r}: should be like {known[key]!r}"
    ) from error


def to_json(config: Any) -> dict:
  """The config as plain JSON values (tuples become lists).

  Optional keys at their defaults are left out, so that runs begun before these
  keys existed have the same config.
  """
  plain = json.loads(json.dumps(config.to_dict()))
  for key, default in rules.optional(plain).items():
    default = list(default) if isinstance(default, tuple) else default
    _leave_out(plain, key.split("."), default)
  return plain


def _leave_out(section: dict, path: list[str], default: Any) -> None:
  """Removes a value that is the default, and sections that it leaves empty."""
  first, *rest = path
  if not rest:
    if section.get(first, default) == default:
      section.pop(first, None)
  elif first in section:
    inner = section[first]
    was_empty = not inner
    _leave_out(inner, rest, default)
    if not inner and not was_empty:
      del section[first]


def digest(config: Any) -> str:
  """The first eight hexadecimal digits of a sha256 of the config."""
  text = json.dumps(to_json(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(old: dict, new: dict) -> list[str]:
  """One line for each key whose values differ."""
  old, new = flatten(old), flatten(new)
  lines = []
  for key in sorted(old.keys() | new.keys()):
    before, after = old.get(key, "absent"), new.get(key, "absent")
    if before != after:
      lines.append(f"{key}: {before} -> {after}")
  return lines
