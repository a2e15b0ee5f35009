"""Losses beside the public packages that have them, as they are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import losses
from ckd_jax.methods.embed_distill import DISTANCES
from tests.helpers.arrays import draw

# What the packages warn of when they are imported is not ours.
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
SHAPE = (3, 5, 11)


def told(name, ours, theirs) -> None:
  """Prints how far two arrays are from each other, and compares them."""
  gap = np.max(np.abs(np.asarray(ours) - theirs))
  print(f"\n{name}: largest difference {gap:.1e}")
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_generalized_jsd_is_that_of_trl(beta, temperature):
  torch = pytest.importorskip("torch")
  trainers = pytest.importorskip("trl.experimental.gkd")
  trls = trainers.GKDTrainer.generalized_jsd_loss
  how = {"beta": beta, "temperature": temperature}
  student, teacher = draw(*SHAPE, scale=3.0), draw(*SHAPE, seed=1, scale=3.0)
  labels = np.random.default_rng(2).integers(-1, SHAPE[-1], SHAPE[:-1])
  theirs = torch.tensor(student, requires_grad=True)
  known = torch.tensor(teacher)

  def loss(student):
    values = losses.generalized_jsd(student, teacher, **how)
    return losses.counted(values, jnp.asarray(labels)), values

  (value, values), gradient = jax.value_and_grad(loss, has_aux=True)(student)
  wanted = trls(theirs, known, reduction="none", **how).sum(-1)
  told(f"jsd {how}", values, wanted.detach().numpy())
  ignored = torch.tensor(np.where(labels < 0, -100, labels))
  wanted = trls(theirs, known, labels=ignored, **how)
  wanted.backward()
  told("its mean over labels", value, wanted.detach().numpy())
  told("its gradient", gradient, theirs.grad.numpy())


@pytest.mark.parametrize("distance", DISTANCES)
def test_embedding_match_is_that_of_sentence_transformers(distance):
  torch = pytest.importorskip("torch")
  package = pytest.importorskip("sentence_transformers")
  sts = pytest.importorskip("sentence_transformers.losses")
  if not hasattr(sts, "EmbedDistillLoss"):
    pytest.skip(f"{package.__version__} has no EmbedDistillLoss")
  public = sts.EmbedDistillLoss(torch.nn.Identity(), distance)
  teacher = draw(6, 4, seed=1)
  theirs = torch.tensor(draw(6, 4), requires_grad=True)
  known = torch.tensor(teacher)
  wanted = public.compute_loss_from_embeddings([theirs], [known])
  wanted.backward()
  value, gradient = jax.value_and_grad(
    lambda x: losses.embedding_match(x, teacher, distance=distance).mean()
  )(draw(6, 4))
  told(distance, value, wanted.detach().numpy())
  told("its gradient", gradient, theirs.grad.numpy())
