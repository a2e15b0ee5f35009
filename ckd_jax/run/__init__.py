"""One run, from its config to its summary; `train` tells the story.

`plan` settles what is done, `answers` asks the teacher, `context` puts all of
it on the devices, `loop` trains, `summary` tells.
"""

from ckd_jax.run.given import Given
from ckd_jax.run.logger import Diverged
from ckd_jax.run.together import prepare_all, train_faster, train_together
from ckd_jax.run.train import run
from ckd_jax.run.workdir import check_workdir, remove_empty

__all__ = [
  "Diverged",
  "Given",
  "check_workdir",
  "prepare_all",
  "remove_empty",
  "run",
  "train_faster",
  "train_together",
]
