"""Sums of two numbers of two digits, `34+57=91`, made by a generator.

  python -m ckd_jax.main --config=configs/arithmetic.py

The sum alone is predicted; what stands before it is given. Figures are minus
nats per token, which choose the weights, and exact matches, in percent. Test
sums are of other pairs of numbers. Keys are explained in configs/names.py.
"""

from ml_collections import ConfigDict

from ckd_jax import config as configuration
from ckd_jax.configs import names


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value."""
  options = configuration.parse(arg, method="kd")
  config = names.get_config(f"method={options.pop('method')}")
  config.dataset.name = "arithmetic"
  config.dataset.text.length = 10
  config.teacher.steps = 3000
  config.teacher.learning_rate = 1e-3
  config.steps = 3000
  config.eval_every = 250
  configuration.override(config, options)
  return config
