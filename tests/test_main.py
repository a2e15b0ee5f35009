"""Every mistake of a user is one line that names it, and nothing is lost."""

import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from ckd_jax import errors, main
from ckd_jax.system import devices
from tests.helpers.commands import refused
from tests.helpers.paths import DIGITS, ROOT


@pytest.fixture(scope="module")
def good(answers, tmp_path_factory) -> pathlib.Path:
  """A file of answers that a run can use."""
  path = tmp_path_factory.mktemp("good") / "answers.npz"
  np.savez(path, logits=answers)
  return path


# What the user types after a command that works, and what the line must say.
MISTAKES = {
  "unknown method": (":method=ckdd", "'ckd'"),
  "unknown method as a flag": ("--config.method=kdd", ":method=", "'kd'"),
  "method as a flag": ("--config.method=kd", ":method=kd"),
  "unknown student": ("--config.student=resnet9", "'resnet8'"),
  "unknown teacher network": (
    "--config.teacher.source=train --config.teacher.name=cnn_wid",
    "teacher.name",
    "'cnn_wide'",
  ),
  "unknown dataset": ("--config.dataset.name=digit", "'digits'"),
  "unknown schedule": ("--config.schedule=cosin", "'cosine'"),
  "unknown dtype": ("--config.dtype=bfloat61", "'bfloat16'"),
  "unknown key": ("--config.bugdet=3", "'budget'"),
  "unknown inner key": ("--config.hyper.estimtor=all", "'hyper.estimator'"),
  "unknown key in the colon": (":budegt=3", "'budget'"),
  "unknown hyper-parameter": ("--config.hyper.estimator=foo", "batch_groups"),
  "unknown source": ("--config.teacher.source=tabel", "'table'"),
  "unknown view": ("--config.teacher.view=augment", "'augmented'"),
  "unknown student view": ("--config.student_view=tabel", "'table'"),
  "unknown augmentation": ("--config.augment=crop_flp", "'crop_flip'"),
  "unknown kind": ("--config.teacher.kind=logit", "'logits'"),
  "unknown flag": ("--wrkdir=x", "'wrkdir'"),
  "extra argument": ("more", "'more'"),
  "no value in the colon": (":budget", "key=value"),
  "int from text": (":budget=x", "budget=x", "int"),
  "int from a bool": (":budget=true", "budget=true", "int"),
  "int from a fraction": ("--config.budget=2.5", "2.5"),
  "int from text as a flag": ("--config.steps=many", "many"),
  "float from text": ("--config.val_fraction=half", "half"),
  "bool from text": ("--config.teacher.live=maybe", "maybe"),
  "tuple of text": ("--config.dataset.mean=('a',)", "dataset.mean"),
  "tuple of nothing": ("--config.dataset.std=(", "dataset.std"),
  "tuple of zeros": ("--config.dataset.std=(0.0,)", "dataset.std", "above 0"),
  "mean of three channels": (
    "--config.dataset.mean=(0.1,0.2,0.3)",
    "dataset.mean",
    "1 channel",
  ),
  "budget of 0": ("--config.budget=0", "budget is 0"),
  "budget below 0": ("--config.budget=-1", "budget is -1"),
  "budget above the set": ("--config.budget=1439", "1438"),
  "batch of 0": ("--config.batch_size=0", "batch_size is 0"),
  "batch below 0": ("--config.batch_size=-4", "batch_size is -4"),
  "batch above the budget": ("--config.batch_size=321", "321", "320"),
  "val_fraction of 1": ("--config.val_fraction=1.0", "[0, 1)"),
  "val_fraction below 0": ("--config.val_fraction=-0.1", "[0, 1)"),
  "val_fraction NaN": ("--config.val_fraction=nan", "[0, 1)"),
  "rate of 0": ("--config.optimizer.learning_rate=0", "above 0"),
  "rate below 0": ("--config.optimizer.learning_rate=-1", "above 0"),
  "rate NaN": ("--config.optimizer.learning_rate=nan", "above 0"),
  "rate infinite": ("--config.optimizer.learning_rate=inf", "above 0"),
  "momentum below 0": ("--config.optimizer.momentum=-.1", "[0, 1)"),
  "momentum NaN": ("--config.optimizer.momentum=nan", "[0, 1)"),
  "decay below 0": ("--config.optimizer.weight_decay=-.1", "weight_decay"),
  "decay NaN": ("--config.optimizer.weight_decay=nan", "weight_decay"),
  "steps of 0": ("--config.steps=0", "steps is 0"),
  "never validated": ("--config.eval_every=0", "eval_every is 0"),
  "never saved": ("--config.checkpoint_every=0", "checkpoint_every is 0"),
  "never logged": ("--config.log_every=0", "log_every is 0"),
  "seed below 0": ("--config.seed=-1", "seed is -1"),
  "seed of 33 bits": ("--config.seed=4294967296", "seed is 4294967296"),
  "no patience": ("--config.schedule_hyper.patience=0", "patience is 0"),
  "no levels": ("--config.schedule_hyper.levels=0", "levels is 0"),
  "no factor": ("--config.schedule_hyper.factor=0", "(0, 1]"),
  "no epochs": ("--config.schedule_hyper.epochs=0", "epochs is 0"),
  "warm-up of 1": ("--config.schedule_hyper.warmup_fraction=1", "[0, 1)"),
  "milestone of 0": ("--config.schedule_hyper.milestones=(0,)", "milestones"),
  "part of 0": ("--config.teacher.part_size=0", "part_size is 0"),
  "plateau without validation": (
    "--config.schedule=plateau --config.val_fraction=0",
    "val_fraction",
  ),
  "plateau with too few images": (
    "--config.schedule=plateau --config.budget=4",
    "val_fraction",
  ),
  "NaN hyper-parameter": (":method=kd --config.hyper.kd_weight=nan", "finite"),
  "group larger than the batch": (
    "--config.batch_size=3 --config.hyper.positives=4",
    "4 + 1",
  ),
  "ckd without a teacher": ("--config.teacher.source=none", "teacher.source"),
  "no path of the table": ("--config.teacher.path=", "teacher.path"),
  "path of no table": ("--config.teacher.path=nowhere.npz", "nowhere.npz"),
  "path of no checkpoint": (
    "--config.teacher.source=checkpoint --config.teacher.path=nowhere",
    "nowhere",
  ),
  "path of no data": (
    "--config.dataset.name=npz --config.dataset.path=nowhere.npz",
    "nowhere.npz",
  ),
  "data without a path": ("--config.dataset.name=npz", "dataset.path"),
  "a path that is not read": ("--config.dataset.path=x.npz", "dataset.path"),
  "image size of 0": ("--config.dataset.image_size=0", "image_size"),
  "image size of a word": (":dataset.image_size=big", "dataset.image_size"),
  "student of no module": ("--config.student=nowhere:net", "nowhere"),
  "student of no function": ("--config.student=math:net", "math:net"),
  "student that is no model": ("--config.student=math:sqrt", "float"),
  "student without a function": ("--config.student=math:", "math:"),
  "live black box": (
    "--config.teacher.live --config.hyper.offset=none",
    "teacher.live",
  ),
  "live offset": ("--config.teacher.live", "hyper.offset=none"),
  "empty workdir": ("--workdir=", "--workdir= is empty"),
  "pruned for one": ("--config.teacher.pruned=0.1", "one teacher"),
  "pruned black box": (
    ":method=r2kd --config.teacher.source=callable"
    " --config.teacher.path=math:sqrt",
    "teacher.pruned=0.0",
  ),
  "teacher of no module": (
    "--config.teacher.source=callable --config.teacher.path=nowhere:ask",
    "nowhere",
  ),
  "teacher of no function": (
    "--config.teacher.source=callable --config.teacher.path=math:sqr",
    "'sqrt'",
  ),
  "workdir that is a file": (f"--workdir={__file__}", "test_main.py"),
  "workdir that cannot be": ("--workdir=/proc/no/run", "/proc/no/run"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, good, capfd, tmp_path):
  typed, *says = MISTAKES[name]
  colon = [item[1:] for item in typed.split() if item[0] == ":"]
  flags = [item for item in typed.split() if item[0] != ":"]
  line = refused(
    capfd,
    f"--config={DIGITS}:{','.join(colon)}",
    "--config.teacher.source=table",
    f"--config.teacher.path={good}",
    "--config.student=tests.helpers.runs:linear",
    f"--workdir={tmp_path / 'run'}",
    *flags,
  )
  for words in says:
    assert words in line
  assert not list(tmp_path.iterdir())  # nothing is left behind


class Bomb:
  """Pickled, it is a call of a function that makes a file."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.torch
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_does_not_run(how, capfd, tmp_path):
  torch = pytest.importorskip("torch")
  file, crater = tmp_path / "teacher.pth", tmp_path / "crater"
  content = {"state_dict": Bomb(crater)}
  if how == "torch":
    torch.save(content, file)
  else:
    file.write_bytes(pickle.dumps(content))
  line = refused(
    capfd,
    f"--config={DIGITS}:teacher.source=torch,teacher.name=resnet8",
    f"--config.teacher.path={file}",
    f"--workdir={tmp_path / 'run'}",
  )
  assert "teacher.pth" in line
  assert not crater.exists()
  pickle.loads(pickle.dumps(Bomb(crater)))  # it would have
  assert crater.exists()


CONFIGS = {
  "def get_config(arg:\n": "SyntaxError",
  "x = 1\n": "get_config",
  "def get_config(arg):\n  raise OSError('no\\nluck')\n": "no luck",
  "def get_config():\n  pass\n": "TypeError",
  "def get_config(arg):\n  return {}\n": "ConfigDict",
  "import nowhere\n": "nowhere",
}


@pytest.mark.parametrize("text", CONFIGS, ids=CONFIGS.values())
def test_a_bad_config_file_is_one_line(text, capfd, tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(text)
  line = refused(capfd, f"--config={file}")
  assert CONFIGS[text] in line and str(file) in line


def test_a_config_without_a_key_names_it(capfd, tmp_path):
  file = tmp_path / "mine.py"
  text = DIGITS.read_text()
  file.write_text(text.replace("  config.log_every = 50\n", ""))
  assert "'log_every'" in refused(capfd, f"--config={file}")


def test_a_missing_config_names_the_nearest(capfd):
  line = refused(capfd, f"--config={DIGITS.with_name('digit.py')}")
  assert str(DIGITS) in line
  assert "configs/digits.py" in refused(capfd)
  assert "configs/digits.py" in refused(capfd, "--config")
  assert "no config file" in refused(capfd, f"--config={ROOT}")


def test_the_command_itself(tmp_path):
  """Through the interpreter: the exit status and the whole of stderr."""
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "ckd_jax.main",
      "--config=configs/digits.py:budegt=3",
      f"--workdir={tmp_path / 'run'}",
    ],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stdout == ""
  assert done.stderr == (
    "ckd_jax: error: unknown config key 'budegt': did you mean 'budget'?\n"
  )
  assert not (tmp_path / "run").exists()


def test_help_and_debug(capfd):
  assert errors.command(main.main, ["--help"]) == 0
  assert "--config=FILE" in capfd.readouterr().out
  assert errors.command(main.main, ["--debug"]) == 2
  assert "Traceback" in capfd.readouterr().err


def test_cores_are_chosen_once(monkeypatch):
  """A process whose devices run keeps them, and so does a user's choice."""
  before = jax.config.jax_num_cpu_devices
  count = len(jax.devices())
  devices.use_every_core()
  assert jax.config.jax_num_cpu_devices == before
  assert len(jax.devices()) == count
  code = (
    "import jax; from ckd_jax.system import devices; jax.devices();"
    "devices.use_every_core(); print(jax.device_count())"
  )
  env = {
    key: value
    for key, value in os.environ.items()
    if key not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
  }
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env={**env, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.stdout == "1\n", done.stderr
