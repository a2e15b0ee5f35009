"""Short texts, their tokens, and runs on them."""

import json

import numpy as np

from ckd_jax import config as configuration
from ckd_jax.data import TokenView
from ckd_jax.data.vocabulary import Vocabulary
from tests.helpers.paths import ROOT

WORDS = tuple(f"w{number}" for number in range(17))
LENGTH = 6
VIEW = TokenView(Vocabulary("words", WORDS), LENGTH)
QUICK = "steps=6,eval_every=3,checkpoint_every=3,log_every=1,batch_size=8"
questions: list[str] = []  # what `oracle` was asked about


def tokens(rows: int, length: int = LENGTH, seed: int = 0) -> np.ndarray:
  """int32[rows, length]: texts of 1 to `length` words, 0 after the end."""
  draw = np.random.default_rng(seed)
  ids = draw.integers(3, VIEW.vocabulary.size, (rows, length))
  lengths = draw.integers(1, length + 1, (rows, 1))
  return np.where(np.arange(length) < lengths, ids, 0).astype(np.int32)


def sentences(rows: int, seed: int = 0) -> list[str]:
  """Texts, of which every second one begins with w0, the others with w1."""
  draw = np.random.default_rng(seed)
  return [
    " ".join([f"w{row % 2}", *draw.choice(WORDS[2:], draw.integers(1, 5))])
    for row in range(rows)
  ]


def oracle(texts: list[str]) -> np.ndarray:
  """A black box: list of str -> float[n, 2], of the first word alone."""
  questions.extend(texts)
  return np.array([[3.0, 0.0] if x.startswith("w0") else [0, 3] for x in texts])


def write(folder, train: int = 40, test: int = 10) -> str:
  """A set of two classes as files; the path of its folder."""
  folder.mkdir(parents=True, exist_ok=True)
  for seed, (name, rows) in enumerate((("train", train), ("test", test))):
    lines = [
      json.dumps({"label": ("a", "b")[row % 2], "text": text})
      for row, text in enumerate(sentences(rows, seed))
    ]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
  return str(folder)


def read(folder, *flags, arg="method=kd"):
  """The config of a short run on the texts of a folder."""
  return configuration.from_flags(
    [
      f"--config={ROOT}/configs/sst2.py:{arg},budget=30,{QUICK}",
      f"--config.dataset.path={folder}",
      "--config.dataset.text.length=6",
      "--config.student=tests.helpers.texts:bag",
      "--config.teacher.source=callable",
      "--config.teacher.path=tests.helpers.texts:oracle",
      *flags,
    ]
  )[0]


def bag(num_classes: int, vocabulary: int):
  """A student that compiles in no time: the mean of a vector for each word."""
  import jax
  import jax.numpy as jnp

  from ckd_jax.methods import Mixed, Model, Outputs

  def init(key, inputs):
    del inputs
    table = 0.1 * jax.random.normal(key, (vocabulary, num_classes))
    return {"table": table, "bias": jnp.zeros(num_classes)}, {}

  def apply(params, state, inputs, *, train, key=None):
    if isinstance(inputs, Mixed):
      words = params["table"][inputs.parts] * (inputs.parts > 0)[..., None]
      words = jnp.sum(words * inputs.weights[..., None, None], axis=1)
    else:
      words = params["table"][inputs] * (inputs > 0)[..., None]
    embedding = jnp.mean(words, axis=1)
    return Outputs(embedding + params["bias"][None], embedding), state

  return Model(init, apply)
