"""Teachers that are networks on this machine: ours, or PyTorch's."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ckd_jax import gpt2_weights, models, student, torch_weights
from ckd_jax.data import ImageView, TokenView, count, take
from ckd_jax.errors import UserError
from ckd_jax.methods import Outputs
from ckd_jax.table import Answers, from_outputs
from ckd_jax.teacher.teacher import Network, Teacher

_LOGITS = frozenset({"logits"})
_NUMBERS = 2**26  # logits of one pass of a pretrained language model, at most


def from_model(
  name: str,
  network: Network,
  *,
  batch_size: int = 512,
  mesh: jax.sharding.Mesh | None = None,
  needs: frozenset[str] = _LOGITS,
) -> Teacher:
  """A network that answers on this process's devices.

  Args:
    name: readable; a digest of weights and view is appended.
    network: architecture and weights.
    batch_size: rows per pass, rounded up to a multiple of the devices; the
      last batch is padded, so one shape is compiled.
    mesh: devices with an axis `data`; default: all of this process.
    needs: fields of `Outputs` that `ask` returns by default.
  """
  if mesh is None or jax.process_count() > 1:  # only one process asks
    devices = jax.local_devices()
    mesh = jax.make_mesh(
      (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )
  batch_size = -(-batch_size // mesh.size) * mesh.size
  everywhere, by_row = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
  weights = jax.device_put((network.params, network.state), everywhere)

  def forward(weights, inputs, needs):
    seen = network.view.exactly(inputs)
    outputs, _ = network.model.apply(*weights, seen, train=False)
    outputs = jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
    return Outputs(
      **{field: getattr(outputs, field) for field in {"logits", *needs}}
    )

  forward = jax.jit(forward, static_argnames="needs", out_shardings=by_row)

  def pad(leaf):
    widths = [(0, batch_size - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)
    return np.pad(leaf, widths)

  def ask(asked: Any, *, needs: frozenset[str] = needs) -> Answers:
    pieces = []
    for start in range(0, count(asked), batch_size):
      batch = take(asked, slice(start, start + batch_size))
      rows = count(batch)
      padded = jax.device_put(jax.tree.map(pad, batch), by_row)
      outputs = forward(weights, padded, frozenset(needs))
      answers = from_outputs(jax.tree.map(np.asarray, outputs), needs)
      pieces.append(jax.tree.map(lambda x, n=rows: x[:n], answers))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces)

  return Teacher(f"{name}:{_digest(network)[:16]}", ask, network)


def _digest(network: Network) -> str:
  """sha256 of weights and view, which determine the answers."""
  digest = hashlib.sha256()
  _, params, state, view, _ = network
  for leaf in jax.tree.leaves((params, state, view.numbers())):
    leaf = np.asarray(leaf)
    digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
  return digest.hexdigest()


def from_torch(
  path: epath.PathLike,
  name: str,
  *,
  view: ImageView,
  **options,
) -> Teacher:
  """A PyTorch checkpoint of the architecture `name`.

  Args:
    path: .pth or .th, read without running what is in it.
    name: one of `models.names()`.
    view: size of the images, of 1, 3 or 4 channels, and how they were
      normalised in the teacher's training.
    **options: see `from_model`.

  Raises:
    UserError: the file is not a checkpoint of this architecture.
  """
  tensors: Mapping[str, np.ndarray] = torch_weights.load(path)
  params, state = torch_weights.convert(name, tensors, channels=view.shape[-1])
  classes = next(len(x) for x in tensors.values() if np.ndim(x) == 2)
  network = Network(models.get(name, classes), params, state, view, classes)
  return from_model(f"torch:{name}", network, **options)


def from_gpt2(path: epath.PathLike, *, view: TokenView, **options) -> Teacher:
  """A pretrained language model of GPT-2's layout.

  Args:
    path: of the folder that `transformers` wrote.
    view: of a language model's texts, whose tokens are those of the model's
      tokenizers file.
    **options: see `from_model`.

  Raises:
    UserError: there is none, it is damaged or of another layout, it has another
      vocabulary, or its texts are shorter.
  """
  sizes = gpt2_weights.read_sizes(path)
  if view.vocabulary.kind != "file":
    raise UserError(
      f"the teacher {path} reads tokens of its own: set dataset.text.tokens to"
      " the tokenizer.json of its folder"
    )
  numbers = view.vocabulary.numbers()
  if (known := int(numbers.max()) + 1) != sizes.vocabulary:
    raise UserError(
      f"the teacher {path} has a vocabulary of {sizes.vocabulary}, the file of"
      f" dataset.text.tokens one of {known}: give its own tokenizer.json"
    )
  if view.length > sizes.length:
    raise UserError(
      f"the teacher {path} reads {sizes.length} tokens, the texts have"
      f" {view.length}: lower dataset.text.length"
    )
  params = gpt2_weights.load(path, sizes, numbers)
  model, ids = sizes.model(len(numbers)), len(numbers)
  return from_model(
    "gpt2",
    Network(model, params, {}, view, ids),
    batch_size=min(512, max(1, _NUMBERS // (view.length * ids))),
    **options,
  )


def from_run(
  run_dir: epath.PathLike, *, named: Iterable[str] = (), **options
) -> Teacher:
  """The student of one of our runs as the next teacher.

  Args:
    run_dir: folder of a finished run or of an export.
    named: the `package.module:function`s that the config names; the file alone
      may name networks of the zoo only.
    **options: see `from_model`.

  Raises:
    UserError: the folder holds no student, it is damaged or names code, its
      metadata are incomplete, or its tensors belong to another network.
  """
  model, params, state, metadata = student.open_student(
    epath.Path(run_dir) / student.STUDENT, named=named
  )
  network = Network(
    model,
    params,
    state,
    metadata["view"],
    len(metadata["class_names"]),
  )
  return from_model(f"run:{metadata['model']}", network, **options)


def pruned(teacher: Teacher, share: float, **options) -> Teacher:
  """A copy of a local teacher without its smallest weights.

  In every convolution and every linear layer by itself the share of the weights
  with the smallest magnitude is set to 0; biases and batch norm stay. There is
  no training afterwards. (The published code leaves this copy in train mode;
  here it answers from its running statistics, as the teacher does.)

  Args:
    teacher: a local one.
    share: in [0, 1), of the weights of every layer, set to 0.
    **options: see `from_model`.

  References:
    R2KD, arXiv 2311.13934.
  """

  def prune(weight):
    if np.ndim(weight) < 2:
      return weight
    weight = np.array(weight)
    order = np.argsort(np.abs(weight), axis=None, kind="stable")
    weight.flat[order[: round(share * weight.size)]] = 0
    return weight

  network = teacher.network
  params = jax.tree.map(prune, network.params)
  return from_model(
    f"{teacher.name}:pruned", network._replace(params=params), **options
  )
