"""BSS on a CPU, where a convolution in a loop is slow."""

import jax
import jax.numpy as jnp

from ckd_jax import losses


def test_a_cpu_never_convolves_in_a_loop():
  # A convolution in one takes ten times as long there.
  def teacher(x):
    return jax.lax.conv(x, jnp.ones((3, 1, 2, 2)), (1, 1), "VALID")[..., 0, 0]

  def attack(x):
    return losses.bss_attack(teacher, x, jnp.zeros(4, jnp.int32))

  traced = jax.jit(attack).trace(jnp.ones((4, 1, 2, 2)))
  loops = {
    platform: "stablehlo.while"
    in traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ("cpu", "tpu")
  }
  assert loops == {"cpu": False, "tpu": True}
