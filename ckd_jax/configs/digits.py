"""The embedded default: a teacher of digits answers at most 400 questions.

  python -m ckd_jax.main --config=configs/digits.py

Trains a small teacher on scikit-learn's 8x8 digits, asks it about 320 of 400
labelled images (80 validate), and distils a student 15 times smaller by CKD.
Under a minute on two cores, compilation included. Every key is explained in
configs/cifar100.py.
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
  _set_table(config)
  _set_training(config)
  _set_optimizer(config)
  configuration.override(config, options)
  return config


def _set_budget(config: ConfigDict) -> None:
  """What varies between the runs of a comparison."""
  config.seed = 0
  config.label = ""
  config.budget = 400
  config.budget_seed = 0
  config.val_fraction = 0.2


def _set_dataset(config: ConfigDict) -> None:
  """The images, and what is done to them."""
  config.dataset = ConfigDict()
  config.dataset.name = "digits"
  config.dataset.path = placeholder(str)
  config.dataset.image_size = placeholder(int)
  config.dataset.placement = "auto"
  config.dataset.mean = (0.305,)
  config.dataset.std = (0.376,)

  config.augment = "none"  # a mirrored digit is no digit
  config.augment_padding = 1


def _set_student(config: ConfigDict, method: str) -> None:
  """The network that is trained, and the loss."""
  config.student = "cnn"
  config.method = method
  config.hyper = configuration.hyper(config.method)
  config.student_view = configuration.student_view(config.method)
  if config.method == "ckd":
    config.hyper.estimator = "all"
    config.hyper.offset = "fit"


def _set_teacher(config: ConfigDict) -> None:
  """Who is asked, about what, and how."""
  config.teacher = ConfigDict()
  config.teacher.source = "train"
  config.teacher.name = "cnn_wide"
  config.teacher.path = placeholder(str)
  config.teacher.view = "clean"
  config.teacher.live = configuration.live(config.method)
  config.teacher.pruned = configuration.pruned(config.method)
  config.teacher.mean = (0.305,)
  config.teacher.std = (0.376,)
  config.teacher.steps = 300
  config.teacher.batch_size = 64
  config.teacher.learning_rate = 0.1
  config.teacher.schedule = "cosine"
  config.teacher.part_size = 100
  config.teacher.kind = "logits"
  config.teacher.retries = 5
  config.teacher.back_off = 1.0
  config.teacher.concurrency = 1
  config.teacher.requests_per_second = 0.0
  config.teacher.request_size = 1


def _set_table(config: ConfigDict) -> None:
  """Where the answers are kept."""
  config.table = ConfigDict()
  config.table.path = placeholder(str)
  config.table.test_path = placeholder(str)


def _set_training(config: ConfigDict) -> None:
  """How long a run is, and how often it is evaluated and saved."""
  config.batch_size = 64
  config.steps = 600
  config.eval_every = 50
  config.checkpoint_every = 300
  config.log_every = 50
  config.steps_per_launch = 0


def _set_optimizer(config: ConfigDict) -> None:
  """The optimizer, and the learning rate over the steps."""
  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 0.1
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 5e-4

  config.schedule = "cosine"
  config.schedule_hyper = ConfigDict()
  config.schedule_hyper.warmup_fraction = 0.1
  config.schedule_hyper.epochs = 240
  config.schedule_hyper.milestones = (150, 180, 210)
  config.schedule_hyper.factor = 0.1
  config.schedule_hyper.patience = 50
  config.schedule_hyper.levels = 3
  config.schedule_hyper.max_epochs = 1000

  config.dtype = "float32"
