"""The rule of every key of a config."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ckd_jax import augment, methods, models
from ckd_jax.data import corruption
from ckd_jax.errors import UserError, nearest
from ckd_jax.step import optimizer
from ckd_jax.system import redacted

SOURCES = ("callable", "checkpoint", "none", "table", "torch", "train")


class Rule(NamedTuple):
  """A test of one value, and a description of valid ones."""

  fits: Callable[[object], bool]
  words: str


def _is_number(value) -> bool:
  # Python counts a bool as an int.
  return type(value) in (int, float) and math.isfinite(value)


def _whole(low: int, high: float = math.inf) -> Rule:
  to = "or more" if high == math.inf else f"to {high}"
  return Rule(
    lambda value: type(value) is int and low <= value <= high,
    f"a whole number, {low} {to}",
  )


def _number(test: Callable[[float], bool], words: str) -> Rule:
  return Rule(lambda value: _is_number(value) and test(value), words)


def _numbers(test: Callable[[float], bool], words: str) -> Rule:
  return Rule(
    lambda value: (
      isinstance(value, tuple | list)
      and all(_is_number(x) and test(x) for x in value)
    ),
    words,
  )


_TEXT = Rule(lambda value: isinstance(value, str), "a text")
_PATH = Rule(lambda value: value is None or isinstance(value, str), "a path")
_SWITCH = Rule(lambda value: isinstance(value, bool), "true or false")
_COUNT = _whole(1)
_LIMIT = Rule(
  lambda value: value is None or _COUNT.fits(value),
  "a whole number, 1 or more, or nothing",
)
_SEED = _whole(0, 2**32 - 1)  # JAX drops the higher bits
_RATE = _number(lambda x: x > 0, "a number above 0")
_AMOUNT = _number(lambda x: x >= 0, "a number, 0 or above")
_SHARE = _number(lambda x: 0 <= x < 1, "a number in [0, 1)")
_FACTOR = _number(lambda x: 0 < x <= 1, "a number in (0, 1]")
_MEAN = _numbers(lambda x: True, "a tuple of numbers, one per channel")
_STD = _numbers(lambda x: x > 0, "a tuple of numbers above 0, one per channel")

# Of the inputs; and of images, or of texts, alone. A config with a section
# `dataset.text` is about texts.
RULES: dict[str, Any] = {  # a Rule, names, or a function that returns names
  "seed": _SEED,
  "label": _TEXT,
  "budget": _COUNT,
  "budget_seed": _SEED,
  "val_fraction": _SHARE,
  "dataset.name": _TEXT,
  "dataset.path": _PATH,
  "dataset.placement": ("auto", "device", "stream"),
  "dataset.image_size": Rule(
    lambda value: value is None or _COUNT.fits(value), "a size in pixels"
  ),
  "dataset.imbalance.largest": _whole(0),
  "dataset.imbalance.smallest": _whole(0),
  "dataset.imbalance.exponent": _number(
    lambda x: 0 < x <= 50, "a number above 0, up to 50"
  ),
  "dataset.label_noise.rate": _number(
    lambda x: 0 <= x <= 1, "a number in [0, 1]"
  ),
  "dataset.label_noise.kind": corruption.KINDS,
  "dataset.label_noise.seed": _SEED,
  "dataset.mean": _MEAN,
  "dataset.std": _STD,
  "augment": augment.CHOICES,
  "augment_padding": _whole(0),
  "student_view": ("fresh", "table"),
  "student": models.names,
  "peers": Rule(
    lambda value: (
      isinstance(value, tuple | list) and all(isinstance(x, str) for x in value)
    ),
    "a tuple of names of networks",
  ),
  "method": methods.names,
  "teacher.source": SOURCES,
  "teacher.name": _TEXT,
  "teacher.path": _PATH,
  "teacher.view": ("augmented", "clean"),
  "teacher.live": _SWITCH,
  "teacher.sees": ("clean", "same"),
  "teacher.pruned": _SHARE,
  "teacher.mean": _MEAN,
  "teacher.std": _STD,
  "teacher.steps": _COUNT,
  "teacher.batch_size": _COUNT,
  "teacher.learning_rate": _RATE,
  "teacher.schedule": ("constant", "cosine", "step"),
  "teacher.kind": ("log_probs", "logits", "probs"),
  "teacher.part_size": _COUNT,
  "teacher.request_size": _COUNT,
  "teacher.concurrency": _COUNT,
  "teacher.requests_per_second": _AMOUNT,
  "teacher.retries": _whole(0),
  "teacher.timeout": _AMOUNT,
  "teacher.max_calls": _LIMIT,
  "teacher.max_attempts": _LIMIT,
  "teacher.back_off": _AMOUNT,
  "table.path": _PATH,
  "table.test_path": _PATH,
  "batch_size": _COUNT,
  "steps": _COUNT,
  "eval_every": _COUNT,
  "checkpoint_every": _COUNT,
  "log_every": _COUNT,
  "steps_per_launch": _whole(0),
  "optimizer.clip_norm": _AMOUNT,
  "optimizer.name": optimizer.NAMES,
  "optimizer.learning_rate": _RATE,
  "optimizer.momentum": _SHARE,
  "optimizer.weight_decay": _AMOUNT,
  "schedule": optimizer.SCHEDULES,
  "schedule_hyper.patience": _COUNT,
  "schedule_hyper.levels": _COUNT,
  "schedule_hyper.max_epochs": _COUNT,
  "schedule_hyper.factor": _FACTOR,
  "schedule_hyper.milestones": _numbers(
    lambda x: x > 0, "a tuple of epochs above 0"
  ),
  "schedule_hyper.epochs": _COUNT,
  "schedule_hyper.warmup_fraction": _SHARE,
  "dtype": ("bfloat16", "float32"),
  "batch_norm": ("device", "global"),
  "bad_numbers": ("raise", "rollback", "skip"),
}

_OF_IMAGES = {
  "augment",
  "augment_padding",
  "dataset.image_size",
  "dataset.mean",
  "dataset.std",
  "student_view",
  "teacher.mean",
  "teacher.std",
  "teacher.view",
}

TEXT_RULES: dict[str, Any] = {
  **{key: rule for key, rule in RULES.items() if key not in _OF_IMAGES},
  "dataset.text.tokens": _TEXT,
  "dataset.text.vocabulary_size": _COUNT,
  "dataset.text.length": _COUNT,
  "dataset.text.causal": _SWITCH,
  "dataset.text.rows": ("lines", "windows"),
  "dataset.text.judge": ("accuracy", "matthews"),
  "dataset.text.columns": Rule(
    lambda value: (
      isinstance(value, tuple | list)
      and len(value) <= 2
      and all(isinstance(x, str) for x in value)
    ),
    "a tuple of one or two names",
  ),
  "dataset.text.label": _TEXT,
  "teacher.top_k": _whole(0),
}

# Keys that a config may leave out, and their defaults.
OPTIONAL = {
  "bad_numbers": "raise",
  "batch_norm": "global",
  "dataset.imbalance.exponent": 1.0,
  "dataset.imbalance.largest": 0,
  "dataset.imbalance.smallest": 0,
  "dataset.label_noise.kind": "uniform",
  "dataset.label_noise.rate": 0.0,
  "dataset.label_noise.seed": 0,
  "optimizer.clip_norm": 0.0,
  "optimizer.name": "sgd",
  "peers": (),
  "teacher.max_attempts": None,  # of a whole number
  "teacher.max_calls": None,
  "teacher.sees": "same",
  "teacher.timeout": 0.0,
}

TEXT_OPTIONAL = {
  **OPTIONAL,
  "dataset.text.causal": False,
  "dataset.text.columns": (),
  "dataset.text.judge": "accuracy",
  "dataset.text.label": "label",
  "dataset.text.rows": "lines",
  "teacher.top_k": 0,
}


def is_text(config: Any) -> bool:
  """Whether a config, or its plain values, is about texts."""
  dataset = config["dataset"] if "dataset" in config else {}
  return "text" in dataset


def rules_of(config: Any) -> dict[str, Any]:
  """The rule of every key that this config has."""
  return TEXT_RULES if is_text(config) else RULES


def optional(config: Any) -> dict[str, Any]:
  """The keys that this config may leave out, and their defaults."""
  return TEXT_OPTIONAL if is_text(config) else OPTIONAL


def value(config: Any, key: str) -> Any:
  """The value of a dotted key; the config itself for ""."""
  for part in filter(None, key.split(".")):
    config = config[part]
  return config


def check_complete(config, path: str) -> None:
  """Refuses a config that lacks a key, so that no default hides in code.

  Args:
    config: a ConfigDict.
    path: its file, for the message.
  """
  wanted = sorted(rules_of(config).keys() - optional(config).keys())
  for key in (*wanted, "hyper"):
    try:
      value(config, key)
    except (AttributeError, KeyError, TypeError) as error:
      raise UserError(
        f"{path} lacks the key {key!r}: copy it from"
        f" configs/{'sst2' if is_text(config) else 'digits'}.py"
      ) from error


def check_values(config) -> None:
  """Compares every key with its rule."""
  for key, rule in rules_of(config).items():
    found = value(config, key)
    if redacted.holds_secret(found):
      raise UserError(
        f"{key} holds the user name or the query of an address, which would be"
        " written into config.json: keep keys in environment variables"
      )
    if isinstance(rule, Rule):
      if not rule.fits(found):
        raise UserError(f"{key} is {found!r}: it must be {rule.words}")
    elif not is_own_code(key, found):
      check_choice(key, found, rule)
  for key, found in config.hyper.items():
    if isinstance(found, float) and not math.isfinite(found):
      raise UserError(f"hyper.{key} is {found}: it must be finite")


def is_own_code(key: str, found) -> bool:
  """Whether a network is given as `package.module:function`."""
  return key in ("student", "teacher.name") and ":" in str(found)


def check_choice(key: str, found: Any, choices: Any) -> None:
  """Refuses a name that is not in `choices`, or in what they return."""
  choices = choices() if callable(choices) else choices
  if found not in choices:
    raise UserError(f"unknown {key} {found!r}: {nearest(str(found), choices)}")
