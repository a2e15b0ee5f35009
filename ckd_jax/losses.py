"""Every loss function of the library, pure and usable in any pipeline.

Point-wise losses return one value per example, relational losses one scalar per
group; the caller averages them and applies vmap. The functions are defined in
the files of ckd_jax/methods; `fitted_offset` adds what comparisons leave free.

Values and gradients are finite where inputs are and none is above 1e8 in size;
squares of far larger ones are no float32.
"""

from ckd_jax.methods.ab import activation_boundary
from ckd_jax.methods.at import attention_transfer
from ckd_jax.methods.cc import correlation_congruence
from ckd_jax.methods.ckd import ckd, ckd_all
from ckd_jax.methods.crd import CRDMemory, crd, crd_memory
from ckd_jax.methods.dist import dist
from ckd_jax.methods.dkd import dkd
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
from ckd_jax.methods.sp import similarity_preserving
from ckd_jax.methods.vid import vid
from ckd_jax.offset import fitted_offset

__all__ = [
  "CRDMemory",
  "activation_boundary",
  "attention_transfer",
  "ckd",
  "ckd_all",
  "correlation_congruence",
  "crd",
  "crd_memory",
  "dist",
  "dkd",
  "enqueue",
  "factor_transfer",
  "fitted_offset",
  "fsp",
  "hint",
  "icd",
  "infoflow",
  "kd",
  "logit_mse",
  "nst",
  "pkt",
  "r2kd_rank",
  "r2kd_value",
  "rkd",
  "rkd_angle",
  "rkd_distance",
  "rrd",
  "similarity_preserving",
  "vid",
]
