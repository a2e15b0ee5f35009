"""First names, character by character: a language model on embedded data.

  python -m ckd_jax.main --config=configs/names.py

A causal transformer is trained on 6,453 names, answers about 800 of them (the
logits of every position of a name are one call), and a smaller one learns from
its answers. Figures are minus nats per token: higher is better. Two minutes on
two cores. Keys that are not explained here are in configs/sst2.py.
"""

from ml_collections import ConfigDict

from ckd_jax import config as configuration
from ckd_jax.configs import sst2


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value."""
  options = configuration.parse(arg, method="kd")
  config = sst2.get_config(f"method={options.pop('method')}")
  config.dataset.name = "names"
  config.dataset.text.update(
    tokens="characters",
    vocabulary_size=100,
    # A name, and its end.
    length=16,
    # The next token is learned, at every position.
    causal=True,
    # lines of a file, or windows of so many tokens into which it is cut.
    rows="lines",
  )
  config.student = "lm_tiny"
  config.teacher.name = "lm_small"
  # on_policy and okd ask it in every step; the others ask once, for a table.
  config.teacher.live = configuration.live(config.method)
  # Of a teacher's answers, how many of the most probable tokens are kept; the
  # table is smaller, and kd works on it. 0 keeps all logits.
  config.teacher.top_k = 0
  set_hyper(config)
  configuration.override(config, options)
  return config


def set_hyper(config: ConfigDict) -> None:
  """What differs from classes: temperature 1, and no fitted offset."""
  if config.method == "ckd":
    config.hyper.offset = "none"
    # Labels fix what differences of answers leave free.
    config.hyper.label_weight = 0.0
    config.hyper.cross_entropy_weight = 1.0
  if config.method == "kd":
    config.hyper.temperature = 1.0
