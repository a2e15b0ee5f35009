"""The settings of a run about its teacher, in one record."""

from typing import NamedTuple

import numpy as np

from ckd_jax.table import Table
from ckd_jax.teacher.teacher import AnswerFunction


class Asking(NamedTuple):
  """Which teacher is asked, about which view, and how.

  Attributes:
    source: "train", "checkpoint", "torch", "gpt2", "callable", "table" or
      "none".
    name: a name of `models.names()`, for a local teacher.
    path: a checkpoint, a run, a table, or `package.module:function`.
    kind: of the answers of a callable or a file: "logits", "log_probs" or
      "probs".
    view: "clean" or "augmented".
    view_seed: seed of the augmented view.
    pad: pixels of black border of the augmented view.
    live: whether a local teacher answers inside the step instead.
    pruned: share of weights that a second teacher lacks; 0 is no second one.
    mean: float per channel, mean of a PyTorch teacher's images as pixel / 255.
    std: float per channel, their standard deviation as pixel / 255.
    part_size: images per part of the table.
    retries: how often a failed request is sent again.
    back_off: seconds before the first retry; doubled before each next one.
    concurrency: requests in flight at once, at most.
    requests_per_second: upper limit; 0 is none.
    request_size: images per request.
    top_k: how many of the most probable tokens of a language model are kept; 0
      is all logits.
    timeout: seconds after which a request has failed; 0 is no limit.
    max_calls: calls that the table may ever cost; None is no limit.
    max_attempts: images that may ever be sent for the table, failed requests
      included; None is no limit.
    table_path: folder of the answers; None is one in the run's folder.
    test_path: folder of a table about the test images; None is none.
    given: answers or a function of a Python program, in place of `path`:
      float[n, classes] about the training rows in their order, a Table, or a
      function from images or texts to float[n, classes].
    experts: of several teachers the settings of each, the largest last, in
      place of source, name and path.
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
  top_k: int = 0
  timeout: float = 0.0
  max_calls: int | None = None
  max_attempts: int | None = None
  table_path: str | None = None
  test_path: str | None = None
  given: np.ndarray | Table | AnswerFunction | None = None
  experts: tuple["Asking", ...] = ()
