"""Any value of any key, in a flag, after the config's name, or in a sweep."""

import contextlib
import functools
import io

from hypothesis import strategies as st

from ckd_jax import config as configuration
from ckd_jax import data, methods, sweep
from ckd_jax.errors import UserError
from ckd_jax.run import plan
from tests.helpers.paths import DIGITS

KNOWN = configuration.flatten(
  configuration.from_flags([f"--config={DIGITS}"])[0]
)
KEYS = (
  *KNOWN,
  *("batch_norm", "optimizer.name", "teacher.max_calls", "hyper", "teacher"),
  *("hyper.mix", "nonsense", "seed.x", "", "."),
)
WORDS = (
  *("", "0", "1", "-1", "2", "7", "0.5", "1e-30", "1e999", "-0.0", "nan"),
  *(
    "inf",
    "-Infinity",
    "true",
    "False",
    "None",
    "null",
    "3.0",
    "1_000",
    "0x10",
  ),
  *("()", "(1,)", "(0.3,)", "(1,2", "[1, 2]", "[[1]]", "{}", "{'a': 1}", "'"),
  *("ckd", "icd", "fit", "cosine", "plateau", "cnn", "resnet20", "table"),
  *("bfloat16", "stream", "train", "none", "live", "a=b", "a,b", "--", "-x"),
  *(
    "9" * 30,
    "9" * 5000,
    "[" * 2000,
    "١",
    "\x00",
    "\n",
    "é",
    "\ud800",
    "../..",
  ),
  *(
    "os:abort_",
    "a:b",
    ":",
    "tests.helpers.runs:linear",
    "json:loads",
    "=" * 9,
  ),
)
VALUES = st.one_of(
  st.sampled_from(WORDS),
  st.sampled_from(WORDS),
  st.integers().map(str),
  st.floats().map(str),
  st.text(max_size=12).filter(lambda text: ":" not in text),
)
NUMBERS = {
  bool: st.sampled_from(["true", "false"]),
  int: st.one_of(st.integers(-2, 2000), st.integers()).map(str),
  float: st.one_of(st.floats(0, 1), st.floats(), st.integers(0, 9)).map(str),
  tuple: st.lists(st.floats(-1, 300), max_size=3).map(lambda x: str(tuple(x))),
}


def _likely(key: str):
  """A key, and a value of its type."""
  values = NUMBERS.get(type(KNOWN[key]), st.sampled_from(WORDS))
  return st.tuples(st.just(key), values)


METHODS = (*methods.names(), "nonsense")
_WILD = st.tuples(st.sampled_from(KEYS), VALUES)
_LIKELY = st.sampled_from(sorted(KNOWN)).flatmap(_likely)
_PAIR = st.one_of(_LIKELY, _LIKELY, _LIKELY, _WILD)
_FORMS = (
  *["--config.{}={}"] * 6,
  *("--config.{} {}", "-config.{}={}", "--noconfig.{}"),
)
CASES = st.fixed_dictionaries(
  {
    "method": st.sampled_from(METHODS),
    "before": st.lists(_PAIR, max_size=1),
    "flags": st.lists(st.tuples(st.sampled_from(_FORMS), _PAIR), max_size=3),
    "over": st.one_of(st.none(), st.none(), _PAIR),
  }
)


@functools.cache
def _dataset():
  return data.load("digits", path=None, image_size=None)


def check(case) -> None:
  """It is a plan, or one line."""
  options = [f"{key}={value}" for key, value in case["before"]]
  spec = ",".join([f"method={case['method']}", *options])
  argv = [f"--config={DIGITS}:{spec}"]
  for form, pair in case["flags"]:
    argv += form.format(*pair).split(" ", 1)
  silent = io.StringIO()
  with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
    try:
      if case["over"] is not None:
        argv.append("--over={}={}".format(*case["over"]))
        configs = [*sweep.read(argv)[0].values()]
      else:
        configs = [configuration.from_flags(argv)[0]]
      for config in configs[:2]:
        if config.dataset.name == "digits" and not config.dataset.image_size:
          plan.make_plan(config, _dataset())
    except UserError as error:
      assert len(str(error).splitlines()) == 1, argv
