"""Sentiment of sentences (SST-2): texts, and a transformer from scratch.

  python -m ckd_jax.main --config=configs/sst2.py --config.dataset.path=DIR

DIR holds train.tsv and test.tsv (or dev.tsv), also .jsonl, .xz and .gz: a line
of names, then `label` and `text`, split at tabs. Sets prepared by
tensorflow-datasets need their name and columns:

  --config.dataset.name=glue/sst2 '--config.dataset.text.columns=("sentence",)'

A service is asked about the texts themselves, whatever the student's tokens
are: `teacher.source=callable` and a function from a list of str to
float[n, classes]. Keys that are not explained here are in configs/cifar100.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ckd_jax import config as configuration


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value."""
  options = configuration.parse(arg, method="ckd")
  config = ConfigDict()
  _set_budget(config)
  _set_dataset(config)
  _set_student(config, options.pop("method"))
  _set_teacher(config)
  _set_training(config)
  _set_optimizer(config)
  configuration.override(config, options)
  return config


def _set_budget(config: ConfigDict) -> None:
  """What varies between the runs of a comparison."""
  config.seed = 0
  config.label = ""
  config.budget = 1000
  config.budget_seed = 0
  config.val_fraction = 0.2


def _set_dataset(config: ConfigDict) -> None:
  """The texts, and what they become."""
  config.dataset = ConfigDict()
  config.dataset.name = "text"
  config.dataset.path = placeholder(str)
  config.dataset.placement = "auto"
  config.dataset.text = ConfigDict()
  # words, characters, or the path of a JSON file of the package `tokenizers`.
  config.dataset.text.tokens = "words"
  # The most frequent words of the training texts; the others are unknown.
  config.dataset.text.vocabulary_size = 8000
  # Tokens of a row; longer texts are cut, which is counted and told.
  config.dataset.text.length = 40
  # The figure that chooses weights: accuracy, or matthews.
  config.dataset.text.judge = "accuracy"
  # May be left out: columns = ("text",), the names of a text or of a pair of
  # them; label = "label".


def _set_student(config: ConfigDict, method: str) -> None:
  """The network that is trained, and the loss."""
  config.student = "transformer_tiny"
  config.method = method
  config.hyper = configuration.hyper(config.method)
  if config.method == "ckd":
    config.hyper.estimator = "all"
    config.hyper.offset = "fit"
  if config.method == "mixkd":  # "live" with teacher.live=True
    config.hyper.target = "mixed_answers"
  config.dtype = "float32"


def _set_teacher(config: ConfigDict) -> None:
  """Who is asked, about what, and how."""
  config.teacher = ConfigDict()
  config.teacher.source = "train"
  config.teacher.name = "transformer_small"
  config.teacher.path = placeholder(str)
  config.teacher.live = False
  config.teacher.pruned = 0.0
  config.teacher.steps = 1000
  config.teacher.batch_size = 64
  config.teacher.learning_rate = 5e-4
  config.teacher.schedule = "cosine"
  config.teacher.part_size = 500
  config.teacher.kind = "logits"
  config.teacher.retries = 5
  config.teacher.back_off = 1.0
  config.teacher.concurrency = 1
  config.teacher.requests_per_second = 0.0
  config.teacher.request_size = 1
  config.table = ConfigDict()
  config.table.path = placeholder(str)
  config.table.test_path = placeholder(str)


def _set_training(config: ConfigDict) -> None:
  """How long a run is, and how often it is evaluated and saved."""
  config.batch_size = 64
  config.steps = 1000
  config.eval_every = 50
  config.checkpoint_every = 500
  config.log_every = 50
  config.steps_per_launch = 0


def _set_optimizer(config: ConfigDict) -> None:
  """The optimizer, and the learning rate over the steps."""
  config.optimizer = ConfigDict()
  config.optimizer.name = "adamw"  # transformers train badly with plain SGD
  config.optimizer.learning_rate = 1e-3
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 0.01
  # The longest gradient; a longer one is scaled down. 0: as it is.
  config.optimizer.clip_norm = 1.0

  config.schedule = "cosine"
  config.schedule_hyper = ConfigDict()
  config.schedule_hyper.warmup_fraction = 0.1
  config.schedule_hyper.epochs = 240
  config.schedule_hyper.milestones = (150, 180, 210)
  config.schedule_hyper.factor = 0.1
  config.schedule_hyper.patience = 50
  config.schedule_hyper.levels = 3
  config.schedule_hyper.max_epochs = 1000
