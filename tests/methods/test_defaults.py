"""Defaults that public codes have, or that docs/methods.md calls our own."""

import pytest

from ckd_jax import methods

DEFAULTS = {
  "afd": {
    "weight": 200,
    "dim": 128,
    "cross_entropy_weight": 1,
    "kd_weight": 0.9,
  },
  "bss": {
    "weight": 1,
    "temperature": 3,
    "epochs": 80,
    "base_size": 64,
    "attack_steps": 10,
    "step_size": 0.3,
    "bound": 2.5,
  },
  "ces_kd": {
    "score": "smallest",
    "pacing": 0.5,
    "select": "curriculum",
    "cross_entropy_weight": 0.1,
    "kd_weight": 0.9,
  },
  "dgkd": {
    "guidance_weight": 1,
    "temperature": 5,
    "drop_num": 1,
    "cross_entropy_weight": 0,
  },
  "dml": {"weight": 1, "temperature": 1, "cross_entropy_weight": 1},
  "one": {"weight": 1, "temperature": 3, "ramp_epochs": 80},
  "rtk": {"weight": 200, "kept": 0.5, "dim": 128, "kd_weight": 0.9},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_number_left_out_is_the_public_one(name):
  found = methods.defaults(name)
  assert {key: found[key] for key in DEFAULTS[name]} == DEFAULTS[name]
