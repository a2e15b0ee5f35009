"""Teachers that count what they are asked, each in a file of its own.

They count before they answer, outside of what is tested: a process that is
killed at once has counted, too.
"""

import functools
import os
import time
from collections.abc import Callable

import numpy as np

COUNT = "KILLS_COUNT"  # environment variable: the file in which teachers count
PART = 12  # answers made durable together
IMAGES = 48  # that a run learns from
EXPERTS = ("small", "middle", "large")
# Of 48 images in three strata: all, those of the second and third, the third.
STRATA = dict(zip(EXPERTS, (48, 32, 16), strict=True))


def count(images, name: str = "") -> None:
  """Adds a line for each image that a teacher is asked about, in one write."""
  lines = "".join(f"{hash(image.tobytes())}\n" for image in images)
  with open(f"{os.environ[COUNT]}{name}", "ab", buffering=0) as file:
    file.write(lines.encode())


def oracle(images, name: str = ""):
  """A black box: uint8[n, 8, 8, 1] -> float[n, 10]; counts, then answers."""
  count(images, name)
  time.sleep(0.004)
  weight = (
    np.random.default_rng(("", *EXPERTS).index(name)).normal(size=(64, 10)) / 16
  )
  return images.reshape(len(images), -1) @ weight


small, middle, large = (
  functools.partial(oracle, name=name) for name in EXPERTS
)


def counted(opened: Callable) -> Callable:
  """`teacher.from_run`, whose network counts, then answers."""

  def opens(*arguments, **options):
    network = opened(*arguments, **options)

    def ask(asked, **needs):
      if len(asked) <= PART:  # or it is the test set, which nobody pays
        count(asked)
      return network.ask(asked, **needs)

    return network._replace(ask=ask)

  return opens
