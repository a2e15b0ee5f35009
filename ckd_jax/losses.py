"""Every loss function of the library, pure and usable in any pipeline.

Point-wise losses return one value per example, relational losses one scalar per
group; the caller averages them and applies vmap. The functions are defined in
the files of ckd_jax/methods; `fitted_offset` adds what comparisons leave free.

Values and gradients are finite where inputs are and none is above 1e8 in size;
squares of far larger ones are no float32.
"""

from ckd_jax.methods._afd import (
  AFDHead,
  AFDHeads,
  afd,
  afd_attention,
  afd_heads,
)
from ckd_jax.methods._bss import (
  bss,
  bss_attack,
  bss_base,
  bss_targets,
  bss_weights,
)
from ckd_jax.methods._divergences import (
  generalized_jsd,
  reverse_kl,
  skew_kl,
  skew_reverse_kl,
)
from ckd_jax.methods._mutual import mutual
from ckd_jax.methods._one import one, one_ensemble, one_gate
from ckd_jax.methods._ramp import ramp_up
from ckd_jax.methods.ab import activation_boundary
from ckd_jax.methods.at import attention_transfer
from ckd_jax.methods.cc import correlation_congruence
from ckd_jax.methods.ckd import ckd, ckd_all
from ckd_jax.methods.crd import CRDMemory, crd, crd_memory
from ckd_jax.methods.dist import dist
from ckd_jax.methods.dkd import dkd
from ckd_jax.methods.embed_distill import embedding_match
from ckd_jax.methods.fitnet import hint
from ckd_jax.methods.fsp import fsp
from ckd_jax.methods.ft import factor_transfer
from ckd_jax.methods.icd import icd
from ckd_jax.methods.infoflow import infoflow
from ckd_jax.methods.kd import kd
from ckd_jax.methods.logit_mse import logit_mse
from ckd_jax.methods.nst import nst
from ckd_jax.methods.pkt import pkt
from ckd_jax.methods.r2kd import r2kd_rank, r2kd_value
from ckd_jax.methods.rkd import rkd, rkd_angle, rkd_distance
from ckd_jax.methods.rrd import enqueue, rrd
from ckd_jax.methods.rtk import rtk, rtk_attention
from ckd_jax.methods.sp import similarity_preserving
from ckd_jax.methods.vid import vid
from ckd_jax.numerics import counted
from ckd_jax.offset import fitted_offset

__all__ = [
  "AFDHead",
  "AFDHeads",
  "CRDMemory",
  "activation_boundary",
  "afd",
  "afd_attention",
  "afd_heads",
  "attention_transfer",
  "bss",
  "bss_attack",
  "bss_base",
  "bss_targets",
  "bss_weights",
  "ckd",
  "ckd_all",
  "correlation_congruence",
  "counted",
  "crd",
  "crd_memory",
  "dist",
  "dkd",
  "embedding_match",
  "enqueue",
  "factor_transfer",
  "fitted_offset",
  "fsp",
  "generalized_jsd",
  "hint",
  "icd",
  "infoflow",
  "kd",
  "logit_mse",
  "mutual",
  "nst",
  "one",
  "one_ensemble",
  "one_gate",
  "pkt",
  "r2kd_rank",
  "r2kd_value",
  "ramp_up",
  "reverse_kl",
  "rkd",
  "rkd_angle",
  "rkd_distance",
  "rrd",
  "rtk",
  "rtk_attention",
  "similarity_preserving",
  "skew_kl",
  "skew_reverse_kl",
  "vid",
]
