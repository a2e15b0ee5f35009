"""Devices that are not there: `v5e:2x4` -> what a compiler knows of them."""

import importlib.resources
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax

from ckd_jax.ahead.chips import CHIPS, Chip
from ckd_jax.errors import UserError, nearest

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_COUNTS = ("1", "2", "4", "8", "16", "32", "64", "128", "256")

# Shapes that these compilers accept, and that one can rent.
TARGETS = {
  "v4": _DEEP,
  "v5e": _FLAT,
  "v5p": _DEEP,
  "v6e": _FLAT,
  "h100": _COUNTS,
}
_ONE_HOST = 8  # chips of v5e and v6e; of a larger slice each host has 2x2
_GPUS_OF_A_HOST = 8

# The compiler's library asks nobody about a TPU of this machine, does not claim
# one, and does not complain that there is none.
_QUIETLY = {
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}


class Target(NamedTuple):
  """Devices to compile for.

  Attributes:
    name: "v5e:2x4".
    chip: what each of them can do.
    devices: that JAX takes in a mesh; nothing can be put on them.
  """

  name: str
  chip: Chip
  devices: Sequence[jax.Device]

  @property
  def is_gpu(self) -> bool:
    return self.name.startswith("h100")

  @property
  def options(self) -> dict[str, bool | int]:
    """Of the compiler: what makes it tell its estimates."""
    if not self.is_gpu:
      return {}
    return {
      "xla_gpu_autotune_level": 0,  # there is nothing to try kernels on
      "xla_gpu_collect_cost_model_stats": True,
    }


def names() -> list[str]:
  """One line for each kind of chip, for --help."""
  return [f"{kind}:{' '.join(shapes)}" for kind, shapes in TARGETS.items()]


def target(name: str) -> Target:
  """The devices of a name such as "v5e:2x4" or "h100:8".

  Raises:
    UserError: there is no such target, or no compiler for it.
  """
  every = [
    f"{kind}:{shape}" for kind, sizes in TARGETS.items() for shape in sizes
  ]
  kind, _, shape = name.partition(":")
  if shape not in TARGETS.get(kind, ()):
    same_kind = [one for one in every if one.startswith(f"{kind}:")]
    hint = nearest(name, same_kind or every)
    raise UserError(f"--compile_for={name} is no target: {hint}")
  devices = _gpus(shape) if kind == "h100" else _tpus(kind, shape)
  return Target(name, CHIPS[kind], devices)


def _tpus(kind: str, shape: str) -> Sequence[jax.Device]:
  sides = [*map(int, shape.split("x")), 1][:3]
  host = (
    sides if math.prod(sides) <= _ONE_HOST and kind[2:] == "e" else (2, 2, 1)
  )
  for name, value in _QUIETLY.items():
    os.environ.setdefault(name, value)
  return _described(
    "pip install 'ckd_jax[tpu]'",
    platform="tpu",
    topology_name=f"{kind}:{shape}",
    chips_per_host_bounds=tuple(host),
  )


def _gpus(count: str) -> Sequence[jax.Device]:
  described = importlib.resources.files(__package__) / "h100.txtpb"
  each = min(int(count), _GPUS_OF_A_HOST)
  return _described(
    "pip install 'jax[cuda12]'",
    platform="cuda",
    topology_name="",
    topology=f"1x{int(count) // each}x{each}",  # slices x hosts x devices
    target_config=described.read_text(),
  )


def _described(remedy: str, **what) -> Sequence[jax.Device]:
  from jax.experimental import topologies

  try:
    return topologies.get_topology_desc(**what).devices
  except Exception as error:  # each plugin fails in its own way
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(
      f"no compiler for {what['platform']} devices here: {remedy} ({reason[0]})"
    ) from error
