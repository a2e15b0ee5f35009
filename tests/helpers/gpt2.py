"""A tiny GPT-2 as `transformers` would write it, and its twin in NumPy."""

import json

import ml_dtypes
import numpy as np
import safetensors.numpy

LETTERS, END = "abcde", "<|endoftext|>"
TOKENS = (*LETTERS, END)  # the last one ends a text, as GPT-2's does
WIDTH, DEPTH, HEADS, LENGTH = 8, 2, 2, 12
CONFIG = {
  "model_type": "gpt2",
  "activation_function": "gelu_new",
  "vocab_size": len(TOKENS),
  "n_positions": LENGTH,
  "n_embd": WIDTH,
  "n_layer": DEPTH,
  "n_head": HEADS,
}


def weights() -> dict[str, np.ndarray]:
  """Random tensors by their names, float32."""
  draw = np.random.default_rng(0)
  shapes = {"wte.weight": (len(TOKENS), WIDTH), "wpe.weight": (LENGTH, WIDTH)}
  for number in range(DEPTH):
    for name, inputs, outputs in (
      ("attn.c_attn", WIDTH, 3 * WIDTH),
      ("attn.c_proj", WIDTH, WIDTH),
      ("mlp.c_fc", WIDTH, 4 * WIDTH),
      ("mlp.c_proj", 4 * WIDTH, WIDTH),
    ):
      shapes[f"h.{number}.{name}.weight"] = inputs, outputs
      shapes[f"h.{number}.{name}.bias"] = (outputs,)
    for name in ("ln_1", "ln_2"):
      shapes |= {f"h.{number}.{name}.{x}": (WIDTH,) for x in ("weight", "bias")}
  shapes |= {f"ln_f.{x}": (WIDTH,) for x in ("weight", "bias")}
  made = {name: draw.normal(0, 0.5, shape) for name, shape in shapes.items()}
  return {name: array.astype(np.float32) for name, array in made.items()}


def write(folder, arrays=None, *, prefix="", dtype="float32", **config):
  """Writes config.json, model.safetensors and tokenizer.json; the folder."""
  folder.mkdir(exist_ok=True, parents=True)
  kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
  arrays = weights() if arrays is None else arrays
  held = {prefix + name: array.astype(kind) for name, array in arrays.items()}
  safetensors.numpy.save_file(held, folder / "model.safetensors")
  (folder / "config.json").write_text(json.dumps(CONFIG | config))
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
  return folder


def tokenizer(tokens=TOKENS) -> dict:
  """A tokenizers file: one token a letter."""
  ids = {token: id_ for id_, token in enumerate(tokens)}
  special = {"special": True, "single_word": False, "normalized": False}
  special |= {"lstrip": False, "rstrip": False}
  return {
    "version": "1.0",
    "added_tokens": [
      {"id": ids[token], "content": token} | special
      for token in tokens
      if token == END
    ],
    "pre_tokenizer": {
      "type": "Split",
      "pattern": {"Regex": "."},
      "behavior": "Isolated",
      "invert": False,
    },
    "model": {"type": "WordLevel", "vocab": ids, "unk_token": tokens[0]},
  }


def twin(tensors: dict[str, np.ndarray], tokens) -> np.ndarray:
  """GPT-2's logits [length, vocabulary] of one text, in float64.

  Written from Radford et al. (2019) and the layout of its public checkpoint.
  """
  w = {name: array.astype(np.float64) for name, array in tensors.items()}

  def norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

  def linear(x, name):
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

  def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

  def attention(x, name):
    size = WIDTH // HEADS
    made = []
    q, k, v = np.split(linear(x, f"{name}.c_attn"), 3, axis=-1)
    for head in range(HEADS):
      part = slice(head * size, (head + 1) * size)
      scores = q[:, part] @ k[:, part].T / np.sqrt(size)
      scores[np.triu_indices(len(x), 1)] = -np.inf
      shares = np.exp(scores - scores.max(-1, keepdims=True))
      made.append(shares / shares.sum(-1, keepdims=True) @ v[:, part])
    return linear(np.concatenate(made, -1), f"{name}.c_proj")

  x = w["wte.weight"][tokens] + w["wpe.weight"][: len(tokens)]
  for number in range(DEPTH):
    block = f"h.{number}"
    x = x + attention(norm(x, f"{block}.ln_1"), f"{block}.attn")
    y = gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
    x = x + linear(y, f"{block}.mlp.c_proj")
  return norm(x, "ln_f") @ w.get("lm_head.weight", w["wte.weight"]).T
