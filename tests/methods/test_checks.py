"""Every number that a method takes has a range; a new method is tested unasked.

Values out of it are refused where the method is made, before anything is paid.
"""

import re

import pytest

from ckd_jax import methods

NUMBERS = [
  (name, key)
  for name in methods.names()
  for key, default in methods.defaults(name).items()
  if type(default) in (int, float)
]
SIGNED = {("icd", "initial_log_scale")}
POSITIVE = re.compile(
  "temperature|softness|epsilon|initial_variance|max_scale|factor_rate|power"
  "|.*learning_rate|dim|rows|positives|negatives|max_groups|groups_per_batch"
)
SHARES = {"momentum", "decay", "pruned_weight"}
BETA_IS_A_WEIGHT = {"dist", "dkd", "on_policy"}  # or a share


def refused(name, key):
  """Values outside the range of this hyper-parameter, by its name."""
  kind = type(methods.defaults(name)[key])
  if (name, key) not in SIGNED:
    yield kind(-1)
  if kind is float:
    yield from map(float, ("nan", "inf", "-inf"))
  is_shape = key == "beta" and name not in BETA_IS_A_WEIGHT
  if is_shape or POSITIVE.fullmatch(key):
    yield kind(0)
  if key in SHARES:
    yield 1.1


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_a_number_out_of_range_is_refused_in_one_line(name, key):
  for value in refused(name, key):
    with pytest.raises(ValueError, match=rf"^{key} must be ") as error:
      methods.make(name, **{key: value})
    assert str(error.value).endswith(f"not {value!r}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", methods.names())
def test_every_weight_may_be_zero(name):
  defaults = methods.defaults(name)
  methods.make(name, **{x: 0.0 for x in defaults if x.endswith("weight")})


def test_the_variance_begins_above_its_least_value():
  with pytest.raises(ValueError, match=r"must be above 0\.5"):
    methods.make("vid", initial_variance=0.5, epsilon=0.5)
