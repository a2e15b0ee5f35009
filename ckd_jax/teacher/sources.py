"""Where answers come from: a network here, a checkpoint, or any function."""

import functools
import hashlib
import importlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ckd_jax import errors
from ckd_jax.errors import UserError
from ckd_jax.methods import Model, Outputs

_LOGITS = frozenset({"logits"})


class Teacher(NamedTuple):
  """Somebody who can be asked about images.

  Attributes:
    name: who answers, down to the digest of the weights; a table of one
      teacher is never filled by another.
    ask: (uint8[n, h, w, c], *, needs) -> Outputs of NumPy arrays; None for a
      table that is only read.
    model, params, state, mean, std: of a local teacher, for use in the step.
    classes: how many it knows; None where only its answers tell.
    kind: what its answers are: "logits", "log_probs" or "probs".
    request_size: images of one request; None: a whole part of the table.
    concurrency: requests that may be under way at once.
  """

  name: str
  ask: Callable[..., Outputs] | None
  model: Model | None = None
  params: Any = None
  state: Any = None
  mean: Sequence[float] | None = None
  std: Sequence[float] | None = None
  classes: int | None = None
  kind: str = "logits"
  request_size: int | None = None
  concurrency: int = 1


def from_model(
  name: str,
  model: Model,
  params,
  state,
  *,
  mean: Sequence[float],
  std: Sequence[float],
  batch_size: int = 512,
  mesh: jax.sharding.Mesh | None = None,
  needs: frozenset[str] = _LOGITS,
  classes: int | None = None,
) -> Teacher:
  """A network that answers on this process's devices.

  Args:
    name: for people; the digest of weights and normalisation is added.
    model: the network.
    params: its parameters.
    state: its batch statistics.
    mean: per channel, in units of pixel / 255.
    std: as mean.
    batch_size: images per pass, rounded up to a multiple of the devices; the
      last batch is padded, so one shape is compiled.
    mesh: with one axis, `data`; default: all devices of this process.
    needs: the fields of Outputs that `ask` returns unless told otherwise.
    classes: how many it knows, if known.
  """
  if mesh is None or jax.process_count() > 1:  # a table is asked for by one
    devices = jax.local_devices()
    mesh = jax.make_mesh(
      (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )
  batch_size = -(-batch_size // mesh.size) * mesh.size
  everywhere, by_row = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
  weights = jax.device_put((params, state), everywhere)

  def forward(weights, images, needs):
    channel = functools.partial(jnp.reshape, shape=(1, 1, 1, -1))
    shift, scale = channel(jnp.float32(mean)), channel(jnp.float32(std))
    images = (images.astype(jnp.float32) / 255 - shift) / scale
    outputs, _ = model.apply(*weights, images, train=False)
    outputs = jax.tree.map(lambda x: x.astype(jnp.float32), outputs)
    return Outputs(
      **{field: getattr(outputs, field) for field in {"logits", *needs}}
    )

  forward = jax.jit(forward, static_argnames="needs", out_shardings=by_row)

  def ask(images: np.ndarray, *, needs: frozenset[str] = needs) -> Outputs:
    pieces = []
    for start in range(0, len(images), batch_size):
      batch = images[start : start + batch_size]
      count = len(batch)
      padding = ((0, batch_size - count), (0, 0), (0, 0), (0, 0))
      padded = jax.device_put(np.pad(batch, padding), by_row)
      outputs = forward(weights, padded, frozenset(needs))
      answers = jax.tree.map(np.asarray, outputs)
      pieces.append(jax.tree.map(lambda x, n=count: x[:n], answers))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces)

  return Teacher(
    name=f"{name}:{_digest(params, state, mean, std)[:16]}",
    ask=ask,
    model=model,
    params=params,
    state=state,
    mean=tuple(mean),
    std=tuple(std),
    classes=classes,
  )


def _digest(params, state, mean, std) -> str:
  """Of all that decides the answers of an architecture."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves((params, state, tuple(mean), tuple(std))):
    leaf = np.asarray(leaf)
    digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
  return digest.hexdigest()


def from_torch(
  path: epath.PathLike,
  name: str,
  *,
  mean: Sequence[float],
  std: Sequence[float],
  channels: int = 3,
  **options,
) -> Teacher:
  """A PyTorch checkpoint of the architecture `name`.

  Args:
    path: .pth or .th, read without running what is in it.
    name: one of `models.names()`.
    mean: per channel, in units of pixel / 255, as in the teacher's training.
    std: as mean.
    channels: of the images.
    **options: see `from_model`.

  Raises:
    UserError: the file is no such checkpoint.
  """
  from ckd_jax import models, torch_weights

  tensors: Mapping[str, np.ndarray] = torch_weights.load(path)
  params, state = torch_weights.convert(name, tensors, channels=channels)
  classes = next(len(x) for x in tensors.values() if np.ndim(x) == 2)
  return from_model(
    f"torch:{name}",
    models.get(name, classes),
    params,
    state,
    mean=mean,
    std=std,
    classes=classes,
    **options,
  )


def from_run(run_dir: epath.PathLike, **options) -> Teacher:
  """The student of one of our runs as the next teacher.

  Args:
    run_dir: of a finished run or of an export.
    **options: see `from_model`.

  Raises:
    UserError: there is no student, it does not say what it is, or its tensors
      are those of another network.
  """
  from ckd_jax import export, models

  file = epath.Path(run_dir) / export.STUDENT
  params, state, metadata = export.load(file)
  try:
    facts = {
      key: json.loads(metadata[key])
      for key in ("classes", "image_shape", "mean", "std")
    }
    name = metadata["model"].strip('"')
    classes = int(facts["classes"])
    shape = tuple(map(int, facts["image_shape"]))
    mean, std = (np.asarray(facts[key], float) for key in ("mean", "std"))
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    if not mean.shape == std.shape == shape[2:] or min(classes, *std) <= 0:
      raise ValueError("they do not belong together")
  except (KeyError, OverflowError, TypeError, ValueError) as error:
    raise UserError(
      f"{file} lacks its model, classes, image_shape, mean or std, or they make"
      " no sense: give the folder of a finished run"
    ) from error
  model = models.load(name, classes)
  try:
    outputs, _ = jax.eval_shape(
      lambda images: model.apply(params, state, images, train=False), images
    )
    if outputs.logits.shape != (1, classes):
      raise ValueError(f"{outputs.logits.shape[-1]} classes, not {classes}")
  except Exception as error:  # a network of one's own may raise anything
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise UserError(
      f"the tensors of {file} are not those of {name} ({reason}): give the"
      " folder of a finished run"
    ) from error
  return from_model(
    f"run:{name}",
    model,
    params,
    state,
    mean=facts["mean"],
    std=facts["std"],
    classes=classes,
    **options,
  )


def pruned(teacher: Teacher, share: float, **options) -> Teacher:
  """A copy of a local teacher without its smallest weights.

  In every convolution and every linear layer by itself the share of the weights
  with the smallest magnitude is set to 0; biases and batch norm stay. There is
  no training afterwards. (The published code leaves this copy in train mode;
  here it answers from its running statistics, as the teacher does.)

  Args:
    teacher: with a model.
    share: in [0, 1), of the weights of every layer.
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

  return from_model(
    f"{teacher.name}:pruned",
    teacher.model,
    jax.tree.map(prune, teacher.params),
    teacher.state,
    mean=teacher.mean,
    std=teacher.std,
    classes=teacher.classes,
    **options,
  )


def from_callable(
  spec: str,
  *,
  retries: int = 3,
  back_off: float = 1.0,
  concurrency: int = 1,
  requests_per_second: float | None = None,
  request_size: int = 1,
  kind: str = "logits",
) -> Teacher:
  """Any function `uint8[n, h, w, c] -> float[n, classes]`: an API, say.

  Args:
    spec: `package.module:function`.
    retries: how often a request that raised is sent again.
    back_off: seconds before the first retry; doubled before each next one.
    concurrency: requests under way at once, each in a thread of its own.
    requests_per_second: at most so many are sent, retries included; None or 0
      is no limit.
    request_size: images per request.
    kind: "logits", "log_probs" or "probs".

  Raises:
    UserError: there is no such function, or a number makes no sense.
  """
  function = _import(spec)
  if min(concurrency, request_size, retries + 1) < 1 or back_off < 0:
    raise UserError(
      "teacher.concurrency and teacher.request_size must be at least 1,"
      " teacher.retries and teacher.back_off at least 0"
    )
  wait = _limiter(requests_per_second)

  def ask(images: np.ndarray, *, needs: frozenset[str] = _LOGITS) -> Outputs:
    del needs  # a black box fills logits only
    for attempt in range(retries + 1):
      wait()
      try:
        return Outputs(function(images))
      except UserError:
        raise
      except (Exception, SystemExit) as error:  # a client may call sys.exit
        if attempt == retries:
          raise UserError(
            f"the teacher {spec} failed {retries + 1} times"
            f" ({type(error).__name__}: {error}): its answers so far are kept,"
            " the same command asks for the rest"
          ) from error
        time.sleep(back_off * 2**attempt)

  return Teacher(
    name=f"callable:{spec}",
    ask=ask,
    kind=kind,
    request_size=request_size,
    concurrency=concurrency,
  )


def _import(spec: str) -> Callable:
  module, colon, function = spec.partition(":")
  if not (module and colon and function):
    raise UserError(
      f"{spec!r} does not name a function: write package.module:function"
    )
  try:
    namespace = vars(importlib.import_module(module))
  except (Exception, SystemExit) as error:  # the user's code may do anything
    raise UserError(
      f"cannot import {module!r} of the teacher {spec!r}:"
      f" {type(error).__name__}: {error}"
    ) from error
  functions = [name for name, value in namespace.items() if callable(value)]
  if function not in functions:
    hint = errors.nearest(function, functions) if functions else "it has none"
    raise UserError(f"{module!r} has no function {function!r}: {hint}")
  return namespace[function]


def _limiter(requests_per_second: float | None) -> Callable[[], None]:
  """A function that returns when the next request may go out."""
  if not requests_per_second:
    return lambda: None
  guard = threading.Lock()
  free = time.monotonic()

  def wait():
    nonlocal free
    with guard:
      start = max(free, time.monotonic())
      free = start + 1 / requests_per_second
    time.sleep(max(0.0, start - time.monotonic()))

  return wait
