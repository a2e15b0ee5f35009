"""Every public loss as a function of two arrays, with its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ckd_jax import losses
from tests.helpers.arrays import draw

LABELS = np.array([0, 1, 2, 3, 4, 0])
SINGLES = ("kd", "logit_mse", "dist", "r2kd_value", "r2kd_rank", "bss")
TEXTS = ("generalized_jsd", "reverse_kl", "skew_kl", "skew_reverse_kl")
ROWS = ("icd", "pkt", "correlation_congruence", "infoflow", "ckd_all", "rkd")
MAPS = ("activation_boundary", "attention_transfer", "factor_transfer", "nst")


def of_dkd(student, teacher):
  labels = np.arange(len(student)) % student.shape[1]
  return losses.dkd(student, teacher, labels)


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


# Name -> (shape of both, the loss). A new loss goes here: a test looks.
CASES = {
  **{
    name: ((6, 5), getattr(losses, name)) for name in (*SINGLES, *TEXTS, *ROWS)
  },
  **{name: ((6, 3, 3, 4), getattr(losses, name)) for name in MAPS},
  "hint": ((6, 3, 3, 4), losses.hint),
  "similarity_preserving": ((6, 3, 3, 4), losses.similarity_preserving),
  "rkd_distance": ((6, 5), losses.rkd_distance),
  "rkd_angle": ((6, 5), losses.rkd_angle),
  "dkd": ((6, 5), of_dkd),
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


@functools.cache
def graded(name: str):
  """The jitted loss: -> ((its sum, its value), gradients of both)."""
  return of_both(CASES[name][1])


def of_both(loss):
  """A jitted loss: -> ((its sum, its value), gradients of both inputs)."""

  def total(student, teacher):
    value = loss(student, teacher)
    return jnp.sum(value), value

  return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
