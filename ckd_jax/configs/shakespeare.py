r"""Running text in windows of characters: tiny shakespeare, or your own.

  python -m ckd_jax.main --config=configs/shakespeare.py \
    --config.dataset.path=input.txt

A file (.txt, also .xz or .gz), whose last tenth is the test set, or a folder
with train.txt and test.txt. A window is a row: a budget of 2,000 is 128,000
characters. Keys are explained in configs/names.py.
"""

from ml_collections import ConfigDict

from ckd_jax import config as configuration
from ckd_jax.configs import names


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value."""
  options = configuration.parse(arg, method="kd")
  config = names.get_config(f"method={options.pop('method')}")
  config.dataset.name = "text"
  config.dataset.text.length = 64
  config.dataset.text.rows = "windows"
  config.budget = 2000
  config.teacher.steps = 3000
  config.teacher.learning_rate = 1e-3
  config.steps = 3000
  config.eval_every = 250
  configuration.override(config, options)
  return config
