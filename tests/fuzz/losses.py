"""Every loss on degenerate numbers: finite, and of the shape that is said."""

import functools

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from ckd_jax import losses
from tests.helpers import every_loss

DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16)
POINTWISE = (  # [n]
  *("kd", "logit_mse", "dkd", "hint", "attention_transfer", "vid", "nst"),
  *("factor_transfer", "activation_boundary", "fsp", "afd", "bss", "rtk"),
  *("generalized_jsd", "reverse_kl", "skew_kl", "skew_reverse_kl"),
  "embedding_match",
)
OWN_SHAPES = {  # at inputs of [6, 5] or [6, 3, 3, 4]; the others are scalars
  "mutual": (2, 6),
  "one": (1, 6),
  "one_gate": (6, 2),
  "one_ensemble": (6, 5),
  "afd_attention": (6, 1, 1),
  "rtk_attention": (6, 1, 1),
  "fitted_offset": (5,),
}
LOGITS = ("kd", "logit_mse", "dist", "dkd", "r2kd_value", "r2kd_rank")
ANY_ROWS = (*LOGITS, "icd", "pkt", "correlation_congruence", "rkd", "infoflow")
SHAPES = ((6, 5), (1, 5), (6, 1), (6, 2), (1, 1))
PATTERNS = (
  *("random", "equal rows", "zero", "one hot", "signs", "two rows", "mixed"),
  "constant",
)


def _fsp(student, teacher):
  # Of no channel twice: two gradients of float16 can add up to infinity.
  return losses.fsp(
    student[..., :1], student[..., 1:], teacher[..., :1], teacher[..., 1:]
  )


def _names() -> list[tuple[str, tuple[int, ...]]]:
  """(loss, shape of both inputs)."""
  known = {
    name: shape
    for name, (shape, _) in every_loss.CASES.items()
    if name != "infoflow wide"  # the same at sizes that take long
  }
  degenerate = [(name, shape) for name in ANY_ROWS for shape in SHAPES]
  maps = [
    (name, (1, *known[name][1:]))
    for name in (*every_loss.MAPS, "hint", "vid", "fsp")
  ]
  return sorted({*known.items(), *degenerate, *maps})


@functools.cache
def _graded(name: str):
  """The jitted loss, with its gradients."""
  if name == "fsp":
    return every_loss.of_both(_fsp)
  return every_loss.graded(name)


def numbers(shape, pattern: str, size: float, seed: int, dtype) -> np.ndarray:
  """Numbers of at most `size`, as far as the type holds it."""
  draw = np.random.default_rng(seed)
  random = np.clip(draw.normal(size=shape), -1, 1)
  values = {
    "random": random,
    "equal rows": np.broadcast_to(random[:1], shape),
    "zero": np.zeros(shape),
    "one hot": np.arange(random.size).reshape(shape) % shape[-1] == 0,
    "signs": np.sign(random),
    "two rows": random[np.arange(shape[0]) % 2 % shape[0]],
    "mixed": random * 10.0 ** draw.integers(-16, 1, shape),
    "constant": np.ones(shape),
  }[pattern]
  largest = min(size, float(ml_dtypes.finfo(dtype).max))
  return (values * largest).astype(np.float32).astype(dtype)


_SIDE = st.tuples(
  st.sampled_from(PATTERNS),
  st.sampled_from([0.0, 1e-30, 1e-8, 1e-3, 1.0, 30.0, 1e4, 1e8]),
  st.integers(0, 1000),
)
_OTHER = st.one_of(st.sampled_from(["same", "opposite"]), _SIDE)
CASES = st.tuples(
  st.sampled_from(_names()), st.sampled_from(DTYPES), _SIDE, _OTHER
)


def cases_of(name: str):
  """Cases of one loss that one program answers: of its shape, in float32."""
  shape, _ = every_loss.CASES[name]
  return st.tuples(st.just((name, shape)), st.just(np.float32), _SIDE, _OTHER)


def check(case) -> None:
  """A finite value of the right shape, and finite gradients."""
  (name, shape), dtype, first, second = case
  student = numbers(shape, *first, dtype)
  if isinstance(second, str):
    teacher = student if second == "same" else -student
  else:
    teacher = numbers(shape, *second, dtype)
  (_, value), gradients = _graded(name)(student, teacher)
  of_rows = name.split()[0] in POINTWISE
  wanted = shape[:1] if of_rows else OWN_SHAPES.get(name, ())
  assert value.shape == wanted, (name, value.shape)
  assert value.dtype == jnp.float32, (name, value.dtype)
  assert np.isfinite(value).all(), f"{name}: {value}"
  for side, gradient in zip("st", gradients, strict=True):
    assert np.isfinite(np.asarray(gradient, "f4")).all(), f"{name}: d/d{side}"
