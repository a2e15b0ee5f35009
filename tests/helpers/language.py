"""Language models that compile in no time, and their teachers."""

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import config as configuration
from ckd_jax.data import load
from ckd_jax.data.text import TextOptions
from ckd_jax.methods import Model, Outputs, TopK
from ckd_jax.run import train
from ckd_jax.table.form import top

LENGTH, WORDS = 6, ("ab", "abc", "cab", "bcaab", "caac", "ba", "bb", "aabbcc")
OPTIONS = TextOptions(tokens="characters", length=LENGTH, causal=True)
QUICK = (
  "batch_size=4,steps=4,eval_every=2,checkpoint_every=4,budget=6,"
  "val_fraction=0.34,student=tests.helpers.language:bigram,"
)
asked: list[str] = []


def bigram(num_classes: int) -> Model:
  """Tells the next token by the last one alone; its embedding is nothing."""

  def init(key, tokens):
    shape = (num_classes, num_classes)
    return {"table": 0.1 * jax.random.normal(key, shape)}, {}

  def apply(params, state, tokens, *, train, key=None):
    return Outputs(jnp.asarray(params["table"])[tokens]), state

  return Model(init, apply)


def folder(path):
  """Texts, of which the last two are tested."""
  (path / "train.txt").write_text("\n".join(WORDS[:6]) + "\n")
  (path / "test.txt").write_text("\n".join(WORDS[6:]) + "\n")
  return str(path)


def dataset(path):
  return load("text", path=folder(path), text=OPTIONS)


def full(texts):
  """A black box: n texts -> logits [n, LENGTH, 6], and it says what it saw."""
  asked.extend(texts)
  drawn = [np.random.default_rng(len(text)) for text in texts]
  return np.stack([draw.normal(size=(LENGTH, 6)) for draw in drawn])


def two(texts) -> TopK:
  """The same, but the two most probable tokens alone."""
  return top(full(texts), "logits", 2)


def run(workdir, data, *flags, arg=""):
  """A short run on the texts of `folder`."""
  settled = [f"--config=names:{QUICK}{arg}"]
  settled += ["--config.dataset.name=text", f"--config.dataset.path={data}"]
  settled += [f"--config.dataset.text.length={LENGTH}", *flags]
  return train.run(configuration.from_flags(settled)[0], workdir)
