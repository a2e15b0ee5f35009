"""Everything that a run settles about its teacher before it asks."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ckd_jax.table import Table


class Asking(NamedTuple):
  """Who is asked, about which view, and how.

  Attributes:
    source: "train", "checkpoint", "torch", "callable", "table" or "none".
    name: of a teacher's network.
    path: of a checkpoint, a run or a table, or `package.module:function`.
    kind: of the answers of a callable or a file.
    view: "clean" or "augmented".
    view_seed: of the augmented view.
    pad: pixels of black border of the augmented view.
    live: whether a local teacher answers inside the step instead.
    pruned: share of weights that a second teacher lacks; 0 is no second one.
    mean: of a PyTorch teacher's images, per channel, in units of pixel / 255.
    std: standard deviation of these, in the same units.
    part_size: images in a part of the table.
    retries: how often a request that failed is sent again.
    back_off: seconds before the first retry.
    concurrency: requests under way at once.
    requests_per_second: at most; 0 is no limit.
    request_size: images in a request.
    max_calls: how many calls the table may ever cost; None is no such limit.
    table_path: where the answers are kept; None is in the run's folder.
    test_path: of a table about the test images; None is none.
    given: answers or a function of a Python program, in place of `path`.
  """

  source: str
  name: str = ""
  path: str | None = None
  kind: str = "logits"
  view: str = "clean"
  view_seed: int = 0
  pad: int = 0
  live: bool = False
  pruned: float = 0.0
  mean: tuple[float, ...] = ()
  std: tuple[float, ...] = ()
  part_size: int = 512
  retries: int = 0
  back_off: float = 0.0
  concurrency: int = 1
  requests_per_second: float = 0.0
  request_size: int = 1
  max_calls: int | None = None
  table_path: str | None = None
  test_path: str | None = None
  given: np.ndarray | Table | Callable | None = None
