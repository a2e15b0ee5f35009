"""Losses of a batch refuse a teacher with other examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses
from ckd_jax.methods.crd import crd_memory
from tests.helpers.arrays import draw


def drawn_heads():
  return losses.afd_heads(jax.random.key(0), (3,), (3,), dim=4)


CASES = {
  "similarity_preserving": lambda f, n, m: f(draw(n, 5), draw(m, 7)),
  "pkt": lambda f, n, m: f(draw(n, 5), draw(m, 7)),
  "correlation_congruence": lambda f, n, m: f(draw(n, 5), draw(m, 5)),
  "icd": lambda f, n, m: f(draw(n, 5), draw(m, 5)),
  "rrd": lambda f, n, m: f(draw(n, 5), draw(m, 5), draw(8, 5)),
  "rkd": lambda f, n, m: f(draw(n, 5), draw(m, 7)),
  "infoflow": lambda f, n, m: f(draw(n, 5), draw(m, 7)),
  "r2kd_value": lambda f, n, m: f(draw(n, 5), draw(m, 5)),
  "r2kd_rank": lambda f, n, m: f(draw(n, 5), draw(m, 5)),
  "attention_transfer": lambda f, n, m: f(draw(n, 2, 2, 3), draw(m, 2, 2, 3)),
  "factor_transfer": lambda f, n, m: f(draw(n, 2, 2, 3), draw(m, 2, 2, 3)),
  "nst": lambda f, n, m: f(draw(n, 2, 2, 3), draw(m, 2, 2, 3)),
  "fsp": lambda f, n, m: f(*[draw(n, 2, 2, 3)] * 2, *[draw(m, 2, 2, 3)] * 2),
  "bss": lambda f, n, m: f(draw(n, 5), draw(m, 5)),
  "bss_base": lambda f, n, m: f(
    draw(n, 5), draw(m, 5), jnp.zeros(n, jnp.int32)
  ),
  "embedding_match": lambda f, n, m: f(draw(n, 5), draw(m, 5)),
  "afd": lambda f, n, m: f(
    [draw(n, 2, 2, 3)], [draw(m, 2, 2, 3)], drawn_heads()
  ),
  "dkd": lambda f, n, m: f(draw(n, 5), draw(n, 5), jnp.zeros(m, jnp.int32)),
  "crd": lambda f, n, m: f(
    draw(n, 5),
    draw(m, 5),
    crd_memory(jax.random.key(0), 10, 5),
    jnp.arange(n),
    jnp.zeros((n, 4), jnp.int32),
    num_examples=10,
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_another_number_of_rows_is_refused(name):
  loss = getattr(losses, name)
  value = jax.jit(lambda: CASES[name](loss, 6, 6))()
  assert np.isfinite(jax.tree.leaves(value)[0]).all()
  for rows in ((6, 1), (1, 6)):
    with pytest.raises(ValueError, match=r"student|teacher"):
      CASES[name](loss, *rows)
