"""Every loss function of the library: pure, and usable in any pipeline.

Point-wise losses return one value per example, relational losses one scalar per
group; averages and vmap are the caller's. The functions live in methods/.
"""

from ckd_jax.methods.ckd import ckd, ckd_all
from ckd_jax.methods.kd import kd
from ckd_jax.methods.logit_mse import logit_mse

__all__ = ["ckd", "ckd_all", "kd", "logit_mse"]
