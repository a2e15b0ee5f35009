"""CKD on CIFAR-10 from a public PyTorch checkpoint.

  python -m ckd_jax.main --config=configs/cifar10.py \
    --config.teacher.path=resnet56-4bfd9763.th

The teacher is the option-A ResNet-56 of akamaster/pytorch_resnet_cifar10, read
with `pip install 'ckd_jax[torch]'`; it is asked about 1,600 of 2,000 labelled
images and a resnet20 is distilled. The teacher's accuracy on the first 3,000
test images, measured: 92.633 %. Hours and the student's accuracy: not measured
as it stands. Every key is explained in configs/cifar100.py.
"""

from ml_collections import ConfigDict

from ckd_jax import config as configuration
from ckd_jax.configs import cifar100


def get_config(arg: str = "") -> ConfigDict:
  """`arg`: method=NAME and any other key=value, separated by commas."""
  options = configuration.parse(arg, method="ckd")
  config = cifar100.get_config(f"method={options.pop('method')}")
  config.dataset.name = "cifar10"
  config.dataset.mean = (0.4914, 0.4822, 0.4465)
  config.dataset.std = (0.2470, 0.2435, 0.2616)
  config.student = "resnet20"
  config.teacher.source = "torch"
  config.teacher.name = "resnet56_a"
  config.teacher.view = "clean"
  config.teacher.mean = (0.485, 0.456, 0.406)  # it was trained with ImageNet's
  config.teacher.std = (0.229, 0.224, 0.225)
  configuration.override(config, options)
  return config
