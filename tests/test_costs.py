"""The scripts that measure losses name all methods that they can measure."""

import importlib

import pytest

from ckd_jax import methods
from tests.helpers.paths import ROOT
from tests.tpu import cases


@pytest.fixture
def script(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / "experiments")
  return importlib.import_module


def test_what_is_compiled_is_what_is_recorded(script, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # the script sets it
  compiled = script("compiled")
  recorded = {
    name.removesuffix(" alone")
    for name in cases.CASES
    if name.endswith(" alone")
  }
  assert set(compiled.named("all")) == recorded
  assert compiled.named("kd,icd") == ["kd", "icd"]
  for method, student in (("kd", "resnet8"), ("dml", "one_resnet8")):
    assert compiled.student_for(method, "resnet8") == student
    if method in recorded:
      assert cases.CASES[f"{method} alone"].student == student


def test_what_is_timed_trains_one_student_from_answers(script):
  names = script("method_cost").of_one_network()
  assert {"afd", "ces_kd", "dgkd", "rtk"} < set(names)
  for name in names:
    method = methods.make(name)
    assert method.branches == "none" and not method.live
    assert method.inputs != "texts"
