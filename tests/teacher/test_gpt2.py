"""GPT-2's layout as a teacher: the numbers, the ids, and what is refused."""

import json

import numpy as np
import pytest

from ckd_jax import teacher
from ckd_jax.data import TokenView
from ckd_jax.data.vocabulary import build
from ckd_jax.errors import UserError
from tests.helpers import gpt2

pytest.importorskip("tokenizers")
TEXTS, ROW = ["abcde", "edc", "a"], 8
# a is 1, the end is 2, b has the id that the end would have had.
IDS = {"a": 1, "b": 6, "c": 3, "d": 4, "e": 5}


def view(folder, length=ROW) -> TokenView:
  vocabulary = build(str(folder / "tokenizer.json"), (), 0)
  return TokenView(vocabulary, length, causal=True)


def log_probs(tensors, text) -> np.ndarray:
  """float64[positions, 7], over our ids, by the twin."""
  theirs = [gpt2.TOKENS.index(gpt2.END), *map(gpt2.TOKENS.index, text)]
  logits = gpt2.twin(tensors, theirs)
  logits = np.concatenate([logits.min(-1, keepdims=True), logits], -1)
  logits = logits[:, [0, 1, 6, 3, 4, 5, 2]]
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_ids_of_a_language_model(tmp_path):
  vocabulary = view(gpt2.write(tmp_path)).vocabulary
  tokens, following, cut = vocabulary.encode_next(["ab", "b\ta"], 3)
  assert tokens.tolist() == [[2, 1, 6], [2, 6, 1]] and cut == 0
  assert following.tolist() == [[1, 6, 2], [-1, 1, 2]]
  assert vocabulary.numbers().tolist() == [-1, 0, 5, 2, 3, 4, 1]
  assert vocabulary.pieces("abcdeab", 3) == ["abc", "dea", "b"]


@pytest.mark.parametrize(
  ("prefix", "dtype"),
  [("", "float32"), ("transformer.", "bfloat16"), ("transformer.", "float16")],
)
def test_it_answers_as_its_twin(tmp_path, prefix, dtype):
  tensors = gpt2.weights()
  if dtype == "float32":  # a head of its own
    head = np.random.default_rng(1).normal(size=tensors["wte.weight"].shape)
    tensors["lm_head.weight"] = head.astype(np.float32)
  else:  # constants of older files
    for number in range(gpt2.DEPTH):
      tensors[f"h.{number}.attn.bias"] = np.ones((1, 1, 12, 12), np.float32)
  seen = view(gpt2.write(tmp_path, tensors, prefix=prefix, dtype=dtype))
  asked = teacher.from_gpt2(tmp_path, view=seen)
  assert asked.network.classes == 7 and asked.name.startswith("gpt2:")
  tokens = seen.read(TEXTS)[0]
  found = asked.ask(tokens, needs=frozenset({"logits"})).values
  rounded = {
    name: array.astype(np.float32)
    for name, array in _held(tmp_path, prefix).items()
  }
  for text, answer in zip(TEXTS, found, strict=True):
    wanted = log_probs(rounded, text)
    np.testing.assert_allclose(answer[: len(wanted)], wanted, atol=2e-5)


def _held(folder, prefix) -> dict[str, np.ndarray]:
  """What was written, rounded as the file holds it."""
  from ckd_jax.system import tensors

  held = tensors.read((folder / "model.safetensors").read_bytes())
  return {name.removeprefix(prefix): array for name, array in held.items()}


def changed(**arrays):
  tensors = gpt2.weights() | arrays
  return {name: array for name, array in tensors.items() if array is not None}


NAN = np.full((gpt2.LENGTH, gpt2.WIDTH), np.nan, np.float32)


@pytest.mark.parametrize(
  ("arrays", "config", "message"),
  [
    ({"ln_f.bias": None}, {}, r"ln_f\.bias is missing"),
    ({"wte.weight": None}, {}, r"wte\.weight is missing"),
    ({"h.0.attn.q_proj.weight": np.ones(2)}, {}, "q_proj.weight is not exp"),
    ({"wpe.weight": np.ones((3, 8))}, {}, r"shape \(3, 8\), not \(12, 8\)"),
    ({"wpe.weight": NAN}, {}, r"wpe\.weight holds numbers that are not"),
    ({}, {"n_layer": 3}, r"h\.2\..* is missing"),
    ({}, {"n_layer": 10**9}, "has no 1000000000 blocks"),
    ({}, {"n_layer": 1}, r"h\.1\..* is not expected"),
    ({}, {"model_type": "llama"}, "model_type is 'llama', and GPT-2's"),
    ({}, {"activation_function": "relu"}, "activation_function is 'relu'"),
    ({}, {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
    ({}, {"n_head": 3}, "must be a multiple of n_head"),
    ({}, {"n_inner": 9}, "n_inner its fourfold"),
    ({}, {"n_embd": "8"}, "is no size"),
    ({}, {"vocab_size": 9}, "a vocabulary of 9, the file of .* one of 6"),
    ({}, {"n_positions": 7}, "reads 7 tokens, the texts have 8"),
  ],
)
def test_another_layout_is_one_line(tmp_path, arrays, config, message):
  gpt2.write(tmp_path, changed(**arrays), **config)
  with pytest.raises(UserError, match=message) as raised:
    teacher.from_gpt2(tmp_path, view=view(tmp_path))
  assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("config.json", "[" * 100_000, "is no JSON"),
    ("config.json", "[]", "no config.json of a model"),
    ("config.json", None, "give the folder of a GPT-2"),
    ("model.safetensors", None, "saved as one model.safetensors"),
    ("model.safetensors", "cut", "is cut or damaged"),
  ],
)
def test_damaged_files_are_one_line(tmp_path, name, content, message):
  seen, file = view(gpt2.write(tmp_path)), tmp_path / name
  if content is None:
    file.unlink()
  elif content == "cut":
    file.write_bytes(file.read_bytes()[:-8])
  else:
    file.write_text(content)
  with pytest.raises(UserError, match=message):
    teacher.from_gpt2(tmp_path, view=seen)


def test_the_tokens_must_be_its_own(tmp_path):
  gpt2.write(tmp_path)
  own = TokenView(build("characters", ["abc"], 9), ROW, causal=True)
  with pytest.raises(UserError, match=r"set dataset\.text\.tokens to"):
    teacher.from_gpt2(tmp_path, view=own)
  without = json.dumps(gpt2.tokenizer(gpt2.TOKENS[:-1]))
  (tmp_path / "tokenizer.json").write_text(without)
  with pytest.raises(UserError, match="a token that ends a text"):
    view(tmp_path).read(["a"])


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", [True, False])
def test_a_checkpoint_of_transformers(tmp_path, prefix):
  """What the package writes, against what it computes."""
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  torch.manual_seed(0)
  sizes = {key: gpt2.CONFIG[key] for key in ("n_embd", "n_layer", "n_head")}
  settings = transformers.GPT2Config(
    vocab_size=6, n_positions=12, initializer_range=0.5, **sizes
  )
  whole = transformers.GPT2LMHeadModel(settings).eval()
  saved = whole if prefix else whole.transformer
  saved.save_pretrained(tmp_path, safe_serialization=True)
  (tmp_path / "tokenizer.json").write_text(json.dumps(gpt2.tokenizer()))
  seen = view(tmp_path)
  tokens = seen.read(TEXTS[:1])[0]
  found = teacher.from_gpt2(tmp_path, view=seen).ask(tokens).values[0]
  theirs = seen.vocabulary.numbers()
  with torch.no_grad():
    row = torch.tensor(theirs[tokens[:, :6]])
    logits = whole(row).logits[0].numpy().astype(np.float64)
  wanted = np.concatenate([logits.min(-1, keepdims=True), logits], -1)
  wanted = wanted[:, [0, 1, 6, 3, 4, 5, 2]]
  wanted -= np.log(np.exp(wanted).sum(-1, keepdims=True))
  gap = np.abs(found[:6] - wanted).max()
  print(f"\nlargest difference from transformers: {gap:.1e}")
  assert gap < 2e-5
