"""Flags become typed values; a config is identified by its digest."""

import pytest

from ckd_jax import config as configuration
from ckd_jax import methods
from ckd_jax.config import rules
from ckd_jax.errors import UserError
from tests.helpers.paths import DIGITS, ROOT

CONFIGS = sorted((ROOT / "configs").glob("[a-z]*.py"))


def read(*argv, arg=""):
  return configuration.from_flags([f"--config={DIGITS}:{arg}", *argv])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", methods.names())
def test_every_config_takes_every_method(path, method):
  flags = [f"--config={path}:method={method}", "--config.teacher.path=x"]
  made = methods.make(method)
  if made.branches != "none" and path.stem == "cranfield":
    pytest.skip("several networks compare logits, and there are vectors")
  if made.live:
    flags.append("--config.teacher.live=true")
    if path.stem == "cranfield":
      pytest.skip("the encoder of the documents does not answer in a step")
  config, _ = configuration.from_flags(flags)
  assert config.method == method
  assert set(config.hyper) == set(methods.defaults(method))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_rules_know_exactly_the_keys_of_a_config(path):
  config, _ = configuration.from_flags(
    [f"--config={path}", "--config.teacher.path=x"]
  )
  keys = {
    key for key in configuration.flatten(config) if not key.startswith("hyper.")
  }
  assert keys == set(rules.rules_of(config))


@pytest.mark.parametrize(
  ("key", "text", "value"),
  [
    ("budget", "40", 40),
    ("val_fraction", "0", 0.0),
    ("optimizer.learning_rate", "1e-3", 0.001),
    ("hyper.mean_weight", "1", 1.0),
    ("teacher.live", "true", True),
    ("teacher.live", "False", False),
    ("label", "3", "3"),
    ("dataset.path", "a/b.npz", "a/b.npz"),
    ("dataset.image_size", "16", 16),
    ("dataset.mean", "[0.5]", (0.5,)),
  ],
)
def test_text_after_the_colon_takes_the_type_of_its_key(key, text, value):
  free = key.startswith(("hyper", "teacher"))
  extra = ",hyper.offset=none" if free else ""
  source = ",teacher.source=train"
  found = configuration.flatten(read(arg=f"{key}={text}{extra}{source}")[0])
  assert found[key] == value and type(found[key]) is type(value)


@pytest.mark.parametrize(
  ("argv", "key", "value"),
  [
    (["--config.budget=40"], "budget", 40),
    (["--config.budget", "40"], "budget", 40),
    (["--config.budget=40", "--config.budget=50"], "budget", 50),
    (
      ["--config.teacher.live", "--config.hyper.offset=none"],
      "teacher.live",
      True,
    ),
    (["--noconfig.teacher.live"], "teacher.live", False),
    (["--config.dataset.mean=(0.5,)"], "dataset.mean", (0.5,)),
    (["--config.dataset.path=x"], "dataset.path", "x"),
    (["--config.dataset.image_size=16"], "dataset.image_size", 16),
    (["--config.optimizer.momentum=0"], "optimizer.momentum", 0.0),
    (["--config.label=a=b:c"], "label", "a=b:c"),
  ],
)
def test_flags_take_the_type_of_their_key(argv, key, value):
  found = configuration.flatten(read(*argv)[0])
  assert found[key] == value and type(found[key]) is type(value)


def test_flags_win_over_the_colon_and_the_last_config_wins():
  assert read("--config.budget=40", arg="budget=30")[0].budget == 40
  assert (
    configuration.from_flags(
      ["--config=nowhere.py", f"--config={DIGITS}:budget=30"]
    )[0].budget
    == 30
  )
  assert (
    configuration.from_flags(["--config.budget=40", "--config", str(DIGITS)])[
      0
    ].budget
    == 40
  )


def test_the_default_workdir_follows_the_config():
  config, workdir = read()
  assert workdir == f"runs/digits-{configuration.digest(config)}"
  assert read()[1] == workdir
  assert read("--config.budget=40")[1] != workdir
  assert read("--workdir=mine")[1] == "mine"


def test_a_config_is_locked():
  config, _ = read()
  with pytest.raises(AttributeError):
    config.bugdet = 3


def test_a_method_may_be_repeated_as_a_flag():
  assert read("--config.method=kd", arg="method=kd")[0].method == "kd"
  with pytest.raises(UserError, match=r":method=kd"):
    read("--config.method", "kd")


def test_differences_name_the_keys_and_both_values():
  old = {"a": 1, "b": {"c": [1, 2], "d": "x"}, "e": None}
  new = {"a": 1, "b": {"c": [1, 3], "d": "x"}, "f": 2}
  assert configuration.differences(old, old) == []
  assert configuration.differences(old, new) == [
    "b.c: [1, 2] -> [1, 3]",
    "e: None -> absent",
    "f: absent -> 2",
  ]


@pytest.mark.parametrize("key", rules.RULES)
def test_every_key_refuses_what_is_of_another_type(key):
  """A file may assign anything, where flags are parsed with a type."""
  config, _ = read()
  *parents, last = key.split(".")
  with config.unlocked(), config.ignore_type():
    parent = rules.value(config, ".".join(parents))
    parent[last] = object
    with pytest.raises(UserError, match=rf"{key}"):
      configuration.check(config)


@pytest.mark.parametrize(
  ("key", "text"),
  [
    ("teacher.path", "https://host/v1/ask?key=S3CRET"),
    ("dataset.path", "s3://me:S3CRET@bucket/set"),
    ("table.path", "gs://bucket/table?token=S3CRET"),
    ("label", "https://me:S3CRET@host"),
  ],
)
def test_a_key_in_an_address_never_reaches_a_config(key, text):
  with pytest.raises(UserError, match=f"{key} holds the user name or") as told:
    read(f"--config.{key}={text}")
  assert "S3CRET" not in str(told.value)
  read(f"--config.{key}={text.split('?')[0].replace('me:S3CRET@', '')}")
