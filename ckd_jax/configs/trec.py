"""Kinds of questions (TREC, six classes), as configs/sst2.py.

  python -m ckd_jax.main --config=configs/trec.py --config.dataset.path=DIR

DIR holds train.tsv and test.tsv with the columns `label` and `text`.
"""

from ml_collections import ConfigDict

from ckd_jax import config as configuration
from ckd_jax.configs import sst2


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value."""
  options = configuration.parse(arg, method="ckd")
  config = sst2.get_config(f"method={options.pop('method')}")
  config.dataset.text.length = 24
  configuration.override(config, options)
  return config
