"""The 224-pixel networks: published sizes, and the answers of PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import models, torch_weights
from tests.helpers.arrays import draw

# As torchvision and the MobileNet paper (4.2 million) give them.
PARAMETERS = {
  "resnet18_imagenet": 11_689_512,
  "resnet34_imagenet": 21_797_672,
  "resnet50_imagenet": 25_557_032,
  "mobilenet_v1": 4_231_976,
}
CHANNELS = {
  "resnet18_imagenet": [64, 64, 128, 256, 512],
  "resnet34_imagenet": [64, 64, 128, 256, 512],
  "resnet50_imagenet": [64, 256, 512, 1024, 2048],
  "mobilenet_v1": [64, 128, 256, 512, 1024],
}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if "34" in name else ())
    for name in PARAMETERS
  ],
)
def test_sizes(name):
  model = models.get(name, 1000)
  image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)

  def answer(image):
    params, state = model.init(jax.random.key(0), image)
    return params, model.apply(params, state, image, train=True)[0]

  params, outputs = jax.eval_shape(answer, image)
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == PARAMETERS[name]
  assert outputs.logits.shape == (2, 1000)
  assert [x.shape[-1] for x in outputs.maps] == CHANNELS[name]
  assert [x.shape[1] for x in outputs.maps] == [112, 56, 28, 14, 7]
  shapes = [x.shape for x in outputs.preactivations]
  assert shapes == [x.shape for x in outputs.maps]


@pytest.mark.torch
@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("train", [False, True])
def test_the_answers_of_pytorch(name, train):
  torch = pytest.importorskip("torch")

  torch.manual_seed(0)
  from tests.helpers.torch_networks import reference

  network = reference(name, 10)
  for buffer in (*network.parameters(), *network.buffers()):
    if buffer.ndim == 1 and buffer.dtype == torch.float32:
      buffer.data = torch.rand_like(buffer) + 0.5
  weights = {key: x.numpy() for key, x in network.state_dict().items()}
  params, state = torch_weights.convert(name, weights)
  images = draw(4, 64, 96, 3)
  network.train(train)
  with torch.no_grad():
    expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
  apply = jax.jit(models.get(name, 10).apply, static_argnames="train")
  outputs, _ = apply(params, state, images, train=train)
  scale = float(expected.abs().max())
  np.testing.assert_allclose(
    outputs.logits / scale, expected.numpy() / scale, atol=2e-3
  )
