"""How large the inputs of every loss may be: the bound that README states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses
from tests.helpers.arrays import draw

BOUND = 1e8
LABELS = np.array([0, 1, 2, 3, 4, 0])
SINGLES = ("kd", "logit_mse", "dist", "r2kd_value", "r2kd_rank", "bss")
TEXTS = ("generalized_jsd", "reverse_kl", "skew_kl", "skew_reverse_kl")
ROWS = ("icd", "pkt", "correlation_congruence", "infoflow", "ckd_all", "rkd")
MAPS = ("activation_boundary", "attention_transfer", "factor_transfer", "nst")


def of_crd(student, teacher):
  memory = losses.crd_memory(jax.random.key(0), 6, 5)
  contrast = (np.arange(6)[:, None] + np.arange(4)) % 6
  value, memory = losses.crd(
    student, teacher, memory, np.arange(6), contrast, num_examples=6
  )
  return value + 0 * sum(jnp.sum(leaf) for leaf in memory)


def of_rrd(student, teacher):
  queue, _ = losses.enqueue(jnp.zeros((8, 5)), 3, teacher)
  return losses.rrd(student, teacher, queue)


def heads():
  head = [losses.AFDHead(draw(n, 3), *draw(3, 3)) for n in (4, 4, 3)]
  return losses.AFDHeads(head[:1], head[1:2], head[2], *draw(2, 1, 3))


def of_gate(student, teacher):
  return losses.one_gate(student, teacher[:5, :2], *draw(3, 2))


def of_ensemble(student, teacher):
  return losses.one_ensemble(student[None], jnp.ones((6, 1))) + 0 * teacher


CASES = {
  **{
    name: ((6, 5), getattr(losses, name)) for name in (*SINGLES, *TEXTS, *ROWS)
  },
  **{name: ((6, 3, 3, 4), getattr(losses, name)) for name in MAPS},
  "hint": ((6, 3, 3, 4), losses.hint),
  "similarity_preserving": ((6, 3, 3, 4), losses.similarity_preserving),
  "rkd_distance": ((6, 5), losses.rkd_distance),
  "rkd_angle": ((6, 5), losses.rkd_angle),
  "dkd": ((6, 5), lambda s, t: losses.dkd(s, t, LABELS)),
  "ckd": ((6, 5), lambda s, t: losses.ckd(s[:2], s[2:], t[:2], t[2:])),
  "ckd kl": (
    (6, 5),
    lambda s, t: losses.ckd(s[:2], s[2:], t[:2], t[2:], divergence="kl"),
  ),
  "ckd_all family": (
    (6, 5),
    functools.partial(losses.ckd_all, mean_weight=0.5),
  ),
  "fsp": ((6, 4, 4, 3), lambda s, t: losses.fsp(s, s[..., :2], t, t[..., :2])),
  "vid": ((6, 3, 3, 4), lambda s, t: losses.vid(s, t, jnp.float32(0.0))),
  "infoflow wide": ((8, 40_000), losses.infoflow),  # by another way
  **{
    f"embedding_match {distance}": (
      (6, 5),
      functools.partial(losses.embedding_match, distance=distance),
    )
    for distance in ("l2", "mse", "cosine")
  },
  **{
    f"generalized_jsd {beta}": (
      (6, 5),
      functools.partial(losses.generalized_jsd, beta=beta),
    )
    for beta in (0.0, 1.0)
  },
  "mutual": ((6, 5), lambda s, t: losses.mutual(jnp.stack([s, t]))),
  "one": ((6, 5), lambda s, t: losses.one(s[None], t)),
  "one_gate": ((6, 5), of_gate),
  "one_ensemble": ((6, 5), of_ensemble),
  "afd": ((6, 3, 3, 4), lambda s, t: losses.afd([s], [t], heads())),
  "afd_attention": (
    (6, 3, 3, 4),
    lambda s, t: losses.afd_attention([s], [t], heads()),
  ),
  "rtk": ((6, 3, 3, 4), lambda s, t: losses.rtk([s], [t], heads(), keep=1)),
  "rtk_attention": (
    (6, 3, 3, 4),
    lambda s, t: losses.rtk_attention([s], [t], heads(), keep=1),
  ),
  "counted": ((6, 5), lambda s, t: losses.counted(s, t.astype(int))),
  "crd": ((6, 5), of_crd),
  "rrd": ((6, 5), of_rrd),
  "fitted_offset": ((6, 5), lambda s, t: losses.fitted_offset(s, t, LABELS)),
}


def test_every_loss_is_here():
  helpers = {"CRDMemory", "crd_memory", "enqueue", "ramp_up"}
  helpers |= {"AFDHead", "AFDHeads", "afd_heads"}
  helpers |= {f"bss_{x}" for x in ("attack", "base", "targets", "weights")}
  assert set(losses.__all__) - helpers == {name.split()[0] for name in CASES}


def is_finite(name: str, scale: float) -> bool:
  """The value, and its gradient, of random and of opposite inputs."""
  shape, loss = CASES[name]
  graded = jax.jit(
    jax.value_and_grad(lambda s, t: jnp.sum(loss(s, t)), argnums=(0, 1))
  )
  ordinary = draw(*shape), draw(*shape, seed=1)
  signs = np.sign(ordinary[0])
  for student, teacher in (ordinary, (signs, -signs), (signs, 0 * signs)):
    for pair in ((student, teacher), (teacher, student)):
      pair = [(np.float32(scale) * np.clip(x, -1, 1)) for x in pair]
      found = jax.tree.leaves(graded(*pair))
      if not all(np.isfinite(leaf).all() for leaf in found):
        return False
  return True


@pytest.mark.parametrize("name", CASES)
def test_up_to_the_bound_value_and_gradient_are_finite(name):
  assert is_finite(name, BOUND)
  assert is_finite(name, 1 / BOUND)


def test_a_gate_of_equal_rows_is_finite():
  """A compiled program computed scores twice, and rounded them otherwise."""
  for seed in range(8):
    rows = np.broadcast_to(30 * draw(1, 5, seed=seed), (6, 5))
    weight = np.broadcast_to(1e8 * draw(1, 2, seed=seed + 90), (5, 2))
    rest = draw(3, 2)
    gate = jax.jit(losses.one_gate)(rows, weight, *rest)
    np.testing.assert_allclose(gate.sum(-1), 1, rtol=1e-6)
