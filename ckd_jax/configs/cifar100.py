"""CKD on CIFAR-100 by the published protocol (arXiv 2311.02253).

  python -m ckd_jax.main --config=configs/cifar100.py
  python -m ckd_jax.main --config=configs/cifar100.py:method=kd,budget=4000

A resnet110 is trained on all of CIFAR-100, asked about 1,600 of 2,000 labelled
images (400 validate), and a resnet32 is distilled from those answers: pairs,
simulated epochs, a plateau schedule of three learning rates.

Hours and accuracy: not measured as it stands. The teacher's 187,500 steps and
the student's 25,000 at most want a GPU; the published accuracy of this teacher
is 74.31 %. What was measured of this file is its low-budget study with an
outside table and resnet8 on two CPU cores: experiments/README.md.

Where a teacher exists already, give its answers instead of training one:
  --config.teacher.source=table --config.teacher.path=TABLE_DIR
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ckd_jax import config as configuration


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value, separated by commas."""
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
  # Initial weights, order of the images, augmentation: everything but the
  # choice of the budgeted images follows from it.
  config.seed = 1
  # A word for the report, to tell variants of one method apart.
  config.label = ""
  # Labelled images that the run may see, training and validation together. The
  # teacher is asked about the training part alone.
  config.budget = 2000
  # Which images: the images of a smaller budget are a prefix of one order.
  config.budget_seed = 1
  # Share of the budget that is held out to choose weights and learning rate.
  config.val_fraction = 0.2


def _set_dataset(config: ConfigDict) -> None:
  """The images, and what is done to them."""
  config.dataset = ConfigDict()
  # digits, fake, npz, folder, or a name of tensorflow-datasets.
  config.dataset.name = "cifar100"
  # FILE.npz, DIR of class folders, or data_dir of tensorflow-datasets (default:
  # TFDS_DATA_DIR, or its own).
  config.dataset.path = placeholder(str)
  # Height and width to which images of another size are resized, once.
  config.dataset.image_size = placeholder(int)
  # device: the budgeted images lie on the device. stream: the host decodes the
  # images of each step ahead of it. auto: stream what half of a device's memory
  # does not hold.
  config.dataset.placement = "auto"
  # May be left out, for training labels that are wrong on purpose:
  # config.dataset.label_noise.rate of them drawn anew, by .kind = uniform (any
  # class), symmetric (any other) or pairflip (the next), and .seed.
  # For unequal classes: config.dataset.imbalance.largest rows of the first one,
  # .smallest of the last, and between them by .exponent. Rows are left out
  # first; the budget is chosen last. Answers and the test set stay as they are.
  #
  # Of each channel, in units of pixel / 255.
  config.dataset.mean = (0.5071, 0.4867, 0.4408)
  config.dataset.std = (0.2675, 0.2565, 0.2761)

  # none, crop, flip or crop_flip, drawn anew whenever an image is seen.
  config.augment = "crop_flip"
  # Pixels of black border from which a crop is taken.
  config.augment_padding = 4


def _set_student(config: ConfigDict, method: str) -> None:
  """The network that is trained, and the loss."""
  # A name of ckd_jax.models.names(), or package.module:function: called with
  # the number of classes, it returns a ckd_jax.methods.Model.
  # May be left out: config.peers, names of networks that are trained together
  # with the student by dml, ("resnet20", "wrn_16_2").
  config.student = "resnet32"
  # A file of ckd_jax/methods/; choose it as --config=...:method=NAME.
  config.method = method
  # Keyword arguments of its make(), at the published defaults.
  config.hyper = configuration.hyper(config.method)
  # fresh: the student sees new augmentations. table: what the teacher saw, for
  # methods that match maps at their published defaults, since a cached map
  # matches no other view (ckd_features needs none with features=cc: set fresh).
  config.student_view = configuration.student_view(config.method)


def _set_teacher(config: ConfigDict) -> None:
  """Who is asked, about what, and how."""
  config.teacher = ConfigDict()
  # train: here, on all training labels. checkpoint: of a finished run of ours.
  # torch: a PyTorch checkpoint. table: answers given elsewhere. callable: any
  # function uint8[n, h, w, c] -> float[n, classes]. none: no teacher.
  config.teacher.source = "train"
  # May be left out: config.teacher.sources, for ces_kd and dgkd, several
  # teachers in place of source, name and path, the largest last, of
  # torch, checkpoint and callable alone,
  # ("torch:resnet20_a:FILE", "checkpoint:FOLDER", "callable:module:function").
  # Each has a table of its own, in a folder of table.path, and the budget is
  # the limit of each.
  # The network, for train and torch; for checkpoint only if it is your own
  # package.module:function, which the file alone may not name.
  config.teacher.name = "resnet110"
  # Run directory, checkpoint, table, or package.module:function.
  config.teacher.path = placeholder(str)
  # What the teacher is asked about. augmented: one crop and flip per image, as
  # published. clean: the image as it is.
  config.teacher.view = "augmented"
  # Ask a local teacher inside every step, on the student's own view; such calls
  # are reported as live_calls and not limited.
  config.teacher.live = configuration.live(config.method)
  # A second teacher for r2kd: a copy of a local one without this share of the
  # smallest weights of every layer; 0.1 as published, 0.0 for other methods.
  config.teacher.pruned = configuration.pruned(config.method)
  # The teacher's own normalisation (torch; a trained one uses it too).
  config.teacher.mean = (0.5071, 0.4867, 0.4408)
  config.teacher.std = (0.2675, 0.2565, 0.2761)
  # The recipe of source=train. May be left out: config.teacher.sees = same, the
  # training set as the students have it, or clean, without the noise and the
  # imbalance of dataset.
  config.teacher.steps = 187_500  # 240 epochs of 50,000 images in batches of 64
  config.teacher.batch_size = 64
  config.teacher.learning_rate = 0.05
  config.teacher.schedule = "step"
  # What a foreign file holds: logits, log_probs or probs.
  config.teacher.kind = "logits"
  # Answers made durable together; the most that a kill can make be asked twice.
  config.teacher.part_size = 500
  # For callable: images a request, requests at once, requests a second (0: no
  # limit), how often a failed one is repeated, and the first wait in seconds.
  config.teacher.request_size = 1
  config.teacher.concurrency = 1
  config.teacher.requests_per_second = 0.0
  # May be left out: config.teacher.max_calls, how many calls the table may ever
  # cost, repeated ones included. Without it every image of the budget is asked
  # about, and an answer that cannot be used is a call of the budget, too.
  # Also config.teacher.max_attempts, the same with requests that failed, and
  # config.teacher.timeout, seconds after which a request has failed.
  config.teacher.retries = 5
  config.teacher.back_off = 1.0


def _set_table(config: ConfigDict) -> None:
  """Where the answers are kept."""
  config.table = ConfigDict()
  # Where answers are kept; runs that name the same directory share them, and
  # nothing is asked twice. Default: in the run directory.
  config.table.path = placeholder(str)
  # A table of the test split, for agreement with a black box; never trained on.
  config.table.test_path = placeholder(str)


def _set_training(config: ConfigDict) -> None:
  """How long a run is, and how often it is evaluated and saved."""
  # Rows that a method samples in a step: pairs for ckd, images for most others.
  config.batch_size = 64
  # At most so many steps; a plateau may end the run before.
  config.steps = 25_000
  # Steps between validations; plateau: every simulated epoch instead.
  config.eval_every = 250
  # Steps between checkpoints, from which the same command resumes.
  config.checkpoint_every = 1000
  # Steps between lines in metrics.jsonl.
  config.log_every = 50
  # Steps in one program; 0: as many as suit the device. More than one makes the
  # same run up to rounding.
  config.steps_per_launch = 0
  # May be left out: config.bad_numbers, what a loss or a gradient does that is
  # not finite. "raise": ends the run, names step, parts of the loss and images,
  # and keeps the step for --replay. "skip": that update is not applied, and is
  # counted; the run ends after 100 of them in a row. "rollback": back to the
  # last checkpoint and on with another order of rows, three times at most.


def _set_optimizer(config: ConfigDict) -> None:
  """The optimizer, and the learning rate over the steps."""
  config.optimizer = ConfigDict()  # SGD as PyTorch's, decay on every parameter
  config.optimizer.learning_rate = 0.1
  # May be left out: config.optimizer.name = "sgd", as PyTorch has it, or
  # "adamw", whose first moment decays by `momentum`.
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 5e-4

  # plateau, step, cosine (with warm-up) or constant.
  config.schedule = "plateau"
  config.schedule_hyper = ConfigDict()
  # plateau: so many simulated epochs without a better validation accuracy lower
  # the rate by `factor` and reload the best weights; the run ends after as many
  # such events as `levels`, or at `max_epochs`.
  config.schedule_hyper.patience = 50
  config.schedule_hyper.levels = 3
  config.schedule_hyper.max_epochs = 1000
  # step (and plateau): the rate is multiplied by it.
  config.schedule_hyper.factor = 0.1
  # step: after these epochs out of `epochs`, whatever the number of steps.
  config.schedule_hyper.milestones = (150, 180, 210)
  config.schedule_hyper.epochs = 240
  # cosine: share of the steps in which the rate rises from 0.
  config.schedule_hyper.warmup_fraction = 0.1

  # float32 or bfloat16: what the networks compute in. Parameters, batch
  # statistics and losses are float32.
  config.dtype = "float32"
  # May be left out: config.batch_norm = "global" for statistics of the whole
  # batch, or "device" for those of each device's share, as in most PyTorch code
  # on several GPUs: fewer messages, another result. It is about the student;
  # the batch norms of a method's heads (ft, fitnet) see the whole batch.
