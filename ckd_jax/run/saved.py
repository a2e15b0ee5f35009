"""What of a run is saved, said in one line where it ends early."""

from etils import epath

from ckd_jax.run import checkpoint


def where_it_stands(workdir) -> str:
  """What the same command will do after a Ctrl-C, in one line.

  Args:
    workdir: folder of a run.
  """
  workdir = epath.Path(workdir)
  if (workdir / "summary.json").exists():
    return "the run is finished, and the same command shows it"
  folder = workdir / "checkpoints"
  if (step := checkpoint.latest(folder)) is not None:
    where = folder / checkpoint.step_folder(folder, step).name
    return f"the same command resumes at step {step}, from {where}"
  if newest := _newest(folder):
    return f"the same command resumes at {newest}"
  return (
    "there is no checkpoint yet: the same command trains from the beginning, "
    "and asks nothing again"
  )


def what_is_saved(workdir) -> str:
  """Which checkpoint of a run in this folder is good, in a few words."""
  newest = _newest(epath.Path(workdir) / "checkpoints")
  if newest is None:
    return "no checkpoint was written before it"
  return f"the checkpoint of {newest} is whole"


def _newest(folder: epath.Path) -> str | None:
  """The step of the newest checkpoint, of the main part or of a stage."""
  step = checkpoint.latest(folder)
  if step is not None:
    return f"step {step}"
  stages = sorted(folder.glob("stage_*")) if folder.exists() else []
  for number, stage in reversed(list(enumerate(stages, 1))):
    if (step := checkpoint.latest(stage)) is not None:
      return f"step {step} of stage {number}"
  return None
