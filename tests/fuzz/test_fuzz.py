"""A few of the cases of experiments/fuzz.py, always the same ones."""

import pytest
from hypothesis import HealthCheck, configuration, given, settings

from tests.fuzz import configs, files, losses


@pytest.fixture(autouse=True, scope="module")
def no_folder_in_the_checkout(tmp_path_factory):
  place = tmp_path_factory.mktemp("hypothesis")
  configuration.set_hypothesis_home_dir(place)


def tried(kind, count: int) -> None:
  settings(
    max_examples=count,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
  )(given(kind.CASES)(kind.check))()


@pytest.mark.parametrize(
  ("kind", "count"), [(losses, 10), (configs, 200), (files, 250)]
)
def test_a_case_is_right_or_one_line(kind, count):
  tried(kind, count)
