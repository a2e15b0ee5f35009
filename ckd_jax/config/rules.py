"""The rule of every key of a config."""

import math
from typing import Any

from ckd_jax import augment, methods, models
from ckd_jax.config.rule import (
  AMOUNT,
  COUNT,
  FACTOR,
  LIMIT,
  MEAN,
  PATH,
  RATE,
  SEED,
  SHARE,
  STD,
  SWITCH,
  TEXT,
  Rule,
  number,
  numbers,
  whole,
)
from ckd_jax.data import corruption
from ckd_jax.errors import UserError, nearest
from ckd_jax.step import optimizer
from ckd_jax.system import redacted

SOURCES = (
  "callable",
  "checkpoint",
  "gpt2",
  "none",
  "table",
  "torch",
  "train",
)


def _is_expert(text: Any) -> bool:
  """Whether a text names one of several teachers."""
  source, *rest = text.split(":") if isinstance(text, str) else ("",)
  least = {"callable": 2, "checkpoint": 1, "torch": 2}.get(
    source, len(rest) + 1
  )
  return len(rest) >= least and all(rest[:least])


# Of the inputs; and of images, or of texts, alone. A config with a section
# `dataset.text` is about texts.
RULES: dict[str, Any] = {  # a Rule, names, or a function that returns names
  "seed": SEED,
  "label": TEXT,
  "budget": COUNT,
  "budget_seed": SEED,
  "val_fraction": SHARE,
  "dataset.name": TEXT,
  "dataset.path": PATH,
  "dataset.placement": ("auto", "device", "stream"),
  "dataset.image_size": Rule(
    lambda value: value is None or COUNT.fits(value), "a size in pixels"
  ),
  "dataset.imbalance.largest": whole(0),
  "dataset.imbalance.smallest": whole(0),
  "dataset.imbalance.exponent": number(
    lambda x: 0 < x <= 50, "a number above 0, up to 50"
  ),
  "dataset.label_noise.rate": number(
    lambda x: 0 <= x <= 1, "a number in [0, 1]"
  ),
  "dataset.label_noise.kind": corruption.KINDS,
  "dataset.label_noise.seed": SEED,
  "dataset.mean": MEAN,
  "dataset.std": STD,
  "augment": augment.CHOICES,
  "augment_padding": whole(0),
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
  "teacher.sources": Rule(
    lambda value: (
      isinstance(value, tuple | list) and all(map(_is_expert, value))
    ),
    "a tuple of callable:package.module:function, checkpoint:FOLDER or"
    " torch:NAME:FILE (gpt2 answers at every position, which no method of"
    " several teachers compares: teacher.source takes it)",
  ),
  "teacher.name": TEXT,
  "teacher.path": PATH,
  "teacher.view": ("augmented", "clean"),
  "teacher.live": SWITCH,
  "teacher.sees": ("clean", "same"),
  "teacher.pruned": SHARE,
  "teacher.mean": MEAN,
  "teacher.std": STD,
  "teacher.steps": COUNT,
  "teacher.batch_size": COUNT,
  "teacher.learning_rate": RATE,
  "teacher.schedule": ("constant", "cosine", "step"),
  "teacher.kind": ("log_probs", "logits", "probs"),
  "teacher.part_size": COUNT,
  "teacher.request_size": COUNT,
  "teacher.concurrency": COUNT,
  "teacher.requests_per_second": AMOUNT,
  "teacher.retries": whole(0),
  "teacher.timeout": AMOUNT,
  "teacher.max_calls": LIMIT,
  "teacher.max_attempts": LIMIT,
  "teacher.back_off": AMOUNT,
  "table.path": PATH,
  "table.test_path": PATH,
  "batch_size": COUNT,
  "steps": COUNT,
  "eval_every": COUNT,
  "checkpoint_every": COUNT,
  "log_every": COUNT,
  "steps_per_launch": whole(0),
  "optimizer.clip_norm": AMOUNT,
  "optimizer.name": optimizer.NAMES,
  "optimizer.learning_rate": RATE,
  "optimizer.momentum": SHARE,
  "optimizer.weight_decay": AMOUNT,
  "schedule": optimizer.SCHEDULES,
  "schedule_hyper.patience": COUNT,
  "schedule_hyper.levels": COUNT,
  "schedule_hyper.max_epochs": COUNT,
  "schedule_hyper.factor": FACTOR,
  "schedule_hyper.milestones": numbers(
    lambda x: x > 0, "a tuple of epochs above 0"
  ),
  "schedule_hyper.epochs": COUNT,
  "schedule_hyper.warmup_fraction": SHARE,
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
  "dataset.text.tokens": TEXT,
  "dataset.text.vocabulary_size": COUNT,
  "dataset.text.length": COUNT,
  "dataset.text.causal": SWITCH,
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
  "dataset.text.label": TEXT,
  "teacher.top_k": whole(0),
}

_OF_RETRIEVAL: dict[str, Any] = {
  "dataset.retrieval.embeddings": PATH,
  "dataset.retrieval.temperature": RATE,
  "dataset.retrieval.cosine": SWITCH,
  "dataset.retrieval.sampled": whole(0),
  "dataset.retrieval.documents": ("student", "teacher"),
  "dataset.retrieval.answers": ("scores", "vectors"),
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
  "teacher.sources": (),
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


_RETRIEVAL_OPTIONAL = {
  **TEXT_OPTIONAL,
  "dataset.retrieval.answers": "vectors",
  "dataset.retrieval.documents": "teacher",
}


def is_text(config: Any) -> bool:
  """Whether a config, or its plain values, is about texts."""
  dataset = config["dataset"] if "dataset" in config else {}
  return "text" in dataset


def is_retrieval(config: Any) -> bool:
  """Whether it is about texts that are queries for documents."""
  return is_text(config) and "retrieval" in config["dataset"]


def rules_of(config: Any) -> dict[str, Any]:
  """The rule of every key that this config has."""
  if is_retrieval(config):
    return TEXT_RULES | _OF_RETRIEVAL
  return TEXT_RULES if is_text(config) else RULES


def optional(config: Any) -> dict[str, Any]:
  """The keys that this config may leave out, and their defaults."""
  if is_retrieval(config):
    return _RETRIEVAL_OPTIONAL
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
  example = "sst2" if is_text(config) else "digits"
  example = "cranfield" if is_retrieval(config) else example
  wanted = sorted(rules_of(config).keys() - optional(config).keys())
  for key in (*wanted, "hyper"):
    try:
      value(config, key)
    except (AttributeError, KeyError, TypeError) as error:
      raise UserError(
        f"{path} lacks the key {key!r}: copy it from configs/{example}.py"
      ) from error


def check_values(config) -> None:
  """Compares every key with its rule."""
  for key, rule in rules_of(config).items():
    found = value(config, key)
    each = found if isinstance(found, tuple | list) else (found,)
    if any(map(redacted.holds_secret, each)):
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
