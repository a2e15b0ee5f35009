"""CKD on ImageNet: ResNet-34 to ResNet-18, or ResNet-50 to MobileNet.

  python -m ckd_jax.main --config=configs/imagenet.py \
    --config.teacher.path=resnet34.pth
  python -m ckd_jax.main --config=configs/imagenet.py:pair=resnet50_mobilenet \
    --config.teacher.path=resnet50.pth

The teacher is a state dict of torchvision (resnet34, or resnet50, whose first
weights, IMAGENET1K_V1, are what papers compare with). Of 1,281,167 training
images the teacher is asked about 100,000 at most. The data set is prepared once
by tensorflow-datasets as imagenet2012 (the command says how where it is not),
and its images are decoded when they are needed, unless those of the budget fit
on the device.

Hours and accuracy: not measured, the set was not at hand. Images are resized to
224 x 224 whole, where published numbers (73.31 and 76.13 % for the teachers)
cut the centre out of 256 pixels: compare within this protocol.
"""

from ml_collections import ConfigDict

from ckd_jax import config as configuration
from ckd_jax.configs import cifar100
from ckd_jax.errors import UserError, nearest

_PAIRS = {
  "resnet34_resnet18": ("resnet34_imagenet", "resnet18_imagenet"),
  "resnet50_mobilenet": ("resnet50_imagenet", "mobilenet_v1"),
}


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: pair=NAME, method=NAME and any other key=value."""
  options = configuration.parse(arg, method="ckd", pair="resnet34_resnet18")
  pair = options.pop("pair")
  if pair not in _PAIRS:
    raise UserError(f"unknown pair {pair!r}: {nearest(pair, _PAIRS)}")
  config = cifar100.get_config(f"method={options.pop('method')}")
  config.budget = 105_000
  config.val_fraction = 5 / 105
  config.dataset.name = "imagenet2012"
  config.dataset.image_size = 224
  config.dataset.mean = config.teacher.mean = (0.485, 0.456, 0.406)
  config.dataset.std = config.teacher.std = (0.229, 0.224, 0.225)
  config.augment = "resized_crop_flip"
  config.teacher.source = "torch"
  config.teacher.name, config.student = _PAIRS[pair]
  config.teacher.view = "clean"
  if config.method == "ckd":
    # Every comparison of 256 images, at one pass of each through the student.
    config.hyper.estimator = "all"
    config.hyper.offset = "fit"
  config.batch_size = 256
  config.steps = 40_000  # 102 passes over the budget
  config.eval_every = 2000
  config.checkpoint_every = 2000
  config.optimizer.weight_decay = 1e-4
  config.schedule = "cosine"
  config.dtype = "bfloat16"
  configuration.override(config, options)
  return config
