"""Short runs on real digits, for the tests that need whole ones."""

import contextlib
import io
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import config as configuration
from ckd_jax.methods import Model, Outputs
from ckd_jax.run import logger, train
from tests.helpers.paths import DIGITS

QUICK = (
  "budget=100,batch_size=16,steps=20,eval_every=10,checkpoint_every=10,"
  "log_every=1,"
)


LINEAR = "--config.student=tests.helpers.runs:linear"


# A file may not name code of one's own; the config has to.
LINEAR_TEACHER = "--config.teacher.name=tests.helpers.runs:linear"


CNN = "--config.student=cnn"


def linear(num_classes: int) -> Model:
  """A student that compiles in no time."""

  def init(key, images):
    size = images[0].size
    weight = jax.random.normal(key, (size, num_classes)) / size
    return {"weight": weight, "bias": jnp.zeros(num_classes)}, {}

  def apply(params, state, images, *, train, key=None):
    flat = images.reshape(len(images), -1)
    return Outputs(flat @ params["weight"] + params["bias"][None]), state

  return Model(init, apply)


questions = []  # one entry per image that `oracle` was asked about


def oracle(images):
  """A black box: uint8[n, 8, 8, 1] -> float[n, 10], from the pixels alone."""
  questions.extend(image.tobytes() for image in images)
  weight = np.random.default_rng(0).normal(size=(64, 10)) / 64
  return images.reshape(len(images), -1) @ weight


def read(*flags, arg=""):
  return configuration.from_flags([f"--config={DIGITS}:{arg}", *flags])[0]


def run(workdir, *flags, arg="", draw=False) -> dict:
  """A short run; later flags win over earlier ones."""
  with contextlib.ExitStack() as stack:
    silent = io.StringIO()
    stack.enter_context(contextlib.redirect_stdout(silent))
    stack.enter_context(contextlib.redirect_stderr(silent))
    if not draw:  # half of the time of a short run
      stack.enter_context(mock.patch.object(logger, "curves"))
    return train.run(read(*flags, arg=arg), workdir)


def interrupt_after(monkeypatch, last: int):
  """Ctrl-C while the numbers of a later step are being written."""
  log = logger.Logger.log

  def stop(self, step, **metrics):
    if step > last:
      raise KeyboardInterrupt
    log(self, step, **metrics)

  monkeypatch.setattr(logger.Logger, "log", stop)


def contents(folder) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def from_table(paid, *flags, method="kd"):
  return (
    *flags,
    f"--config.teacher.path={paid[0]}",
  ), QUICK + f"method={method},teacher.source=table"
