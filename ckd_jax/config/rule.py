"""Tests of single values, each with words for valid ones."""

import math
from collections.abc import Callable
from typing import NamedTuple


class Rule(NamedTuple):
  """A test of one value, and a description of valid ones."""

  fits: Callable[[object], bool]
  words: str


def is_number(value) -> bool:
  # Python counts a bool as an int.
  return type(value) in (int, float) and math.isfinite(value)


def whole(low: int, high: float = math.inf) -> Rule:
  to = "or more" if high == math.inf else f"to {high}"
  return Rule(
    lambda value: type(value) is int and low <= value <= high,
    f"a whole number, {low} {to}",
  )


def number(test: Callable[[float], bool], words: str) -> Rule:
  return Rule(lambda value: is_number(value) and test(value), words)


def numbers(test: Callable[[float], bool], words: str) -> Rule:
  return Rule(
    lambda value: (
      isinstance(value, tuple | list)
      and all(is_number(x) and test(x) for x in value)
    ),
    words,
  )


TEXT = Rule(lambda value: isinstance(value, str), "a text")
PATH = Rule(lambda value: value is None or isinstance(value, str), "a path")
SWITCH = Rule(lambda value: isinstance(value, bool), "true or false")
COUNT = whole(1)
LIMIT = Rule(
  lambda value: value is None or COUNT.fits(value),
  "a whole number, 1 or more, or nothing",
)
SEED = whole(0, 2**32 - 1)  # JAX drops the higher bits
RATE = number(lambda x: x > 0, "a number above 0")
AMOUNT = number(lambda x: x >= 0, "a number, 0 or above")
SHARE = number(lambda x: 0 <= x < 1, "a number in [0, 1)")
FACTOR = number(lambda x: 0 < x <= 1, "a number in (0, 1]")
MEAN = numbers(lambda x: True, "a tuple of numbers, one per channel")
STD = numbers(lambda x: x > 0, "a tuple of numbers above 0, one per channel")
