"""One run, from its config to its summary; `train` is its outline.

`plan` settles the run, `answers` asks the teacher, `context` puts both on the
devices, `loop` trains, `summary` reports.
"""

from ckd_jax.run.dataset import load_dataset
from ckd_jax.run.given import Given
from ckd_jax.run.logger import Diverged, header
from ckd_jax.run.outcome import figure
from ckd_jax.run.plan import Plan, make_plan
from ckd_jax.run.programs import (
  Programs,
  longest_launch,
  make_own_step,
  make_programs,
)
from ckd_jax.run.rehearsal import (
  answers_of,
  logits_of,
  refusing,
  rehearse_early,
)
from ckd_jax.run.replay import replay
from ckd_jax.run.together import prepare_all, train_faster, train_together
from ckd_jax.run.train import run
from ckd_jax.run.workdir import check_workdir

__all__ = [
  "Diverged",
  "Given",
  "Plan",
  "Programs",
  "answers_of",
  "check_workdir",
  "figure",
  "header",
  "load_dataset",
  "logits_of",
  "longest_launch",
  "make_own_step",
  "make_plan",
  "make_programs",
  "prepare_all",
  "refusing",
  "rehearse_early",
  "replay",
  "run",
  "train_faster",
  "train_together",
]
