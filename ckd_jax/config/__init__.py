"""Configs: finds, reads, overrides and checks them.

A config is an `ml_collections.ConfigDict`, made by `get_config(arg)` of a file;
the package's own are in `ckd_jax/configs`. `configs/cifar100.py` explains every
key.
"""

from ckd_jax.config.files import get_config, packaged
from ckd_jax.config.flags import from_flags
from ckd_jax.config.help import Parser, epilog, keys
from ckd_jax.config.method import hyper, live, pruned, student_view
from ckd_jax.config.rules import SOURCES
from ckd_jax.config.together import check
from ckd_jax.config.values import (
  differences,
  digest,
  flatten,
  override,
  parse,
  set_value,
  to_json,
)

__all__ = [
  "SOURCES",
  "Parser",
  "check",
  "differences",
  "digest",
  "epilog",
  "flatten",
  "from_flags",
  "get_config",
  "hyper",
  "keys",
  "live",
  "override",
  "packaged",
  "parse",
  "pruned",
  "set_value",
  "student_view",
  "to_json",
]
