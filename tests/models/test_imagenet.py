"""The 224-pixel networks: published sizes, and the answers of PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckd_jax import models, torch_weights

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


def reference(name, classes):
  """The network in PyTorch, from its paper, with torchvision's names."""
  from torch import nn

  def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(
      inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
    )

  class Block(nn.Module):
    def __init__(self, inputs, width, stride, expansion):
      super().__init__()
      self.deep = expansion > 1
      if self.deep:
        shapes = [(inputs, width, 1, 1), (width, width, 3, stride)]
        shapes.append((width, width * expansion, 1, 1))
      else:
        shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
      for i, shape in enumerate(shapes, 1):
        setattr(self, f"conv{i}", conv(*shape))
        setattr(self, f"bn{i}", nn.BatchNorm2d(shape[1]))
      self.count = len(shapes)
      self.downsample = None
      if stride > 1 or inputs != width * expansion:
        self.downsample = nn.Sequential(
          conv(inputs, width * expansion, 1, stride),
          nn.BatchNorm2d(width * expansion),
        )

    def forward(self, x):
      y = x
      for i in range(1, self.count + 1):
        y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
        y = y.relu() if i < self.count else y
      x = self.downsample(x) if self.downsample else x
      return (x + y).relu()

  class ResNet(nn.Module):
    def __init__(self, blocks, expansion):
      super().__init__()
      self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
      self.maxpool = nn.MaxPool2d(3, 2, 1)
      inputs = 64
      for stage, count in enumerate(blocks):
        width, layer = 64 * 2**stage, []
        for i in range(count):
          stride = 2 if stage and not i else 1
          layer.append(Block(inputs, width, stride, expansion))
          inputs = width * expansion
        setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
      self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
      x = self.maxpool(self.bn1(self.conv1(x)).relu())
      for stage in range(1, 5):
        x = getattr(self, f"layer{stage}")(x)
      return self.fc(x.mean((2, 3)))

  class MobileNet(nn.Module):
    def __init__(self):
      super().__init__()
      layers = [nn.Sequential(conv(3, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU())]
      widths = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
      strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
      inputs = 32
      for width, stride in zip(widths, strides, strict=True):
        layers.append(
          nn.Sequential(
            conv(inputs, inputs, 3, stride, inputs),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            conv(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
          )
        )
        inputs = width
      self.model, self.fc = nn.Sequential(*layers), nn.Linear(1024, classes)

    def forward(self, x):
      return self.fc(self.model(x).mean((2, 3)))

  if name == "mobilenet_v1":
    return MobileNet()
  blocks = (2, 2, 2, 2) if "18" in name else (3, 4, 6, 3)
  return ResNet(blocks, 4 if "50" in name else 1)


@pytest.mark.torch
@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("train", [False, True])
def test_the_answers_of_pytorch(name, train):
  torch = pytest.importorskip("torch")

  torch.manual_seed(0)
  network = reference(name, 10)
  for buffer in (*network.parameters(), *network.buffers()):
    if buffer.ndim == 1 and buffer.dtype == torch.float32:
      buffer.data = torch.rand_like(buffer) + 0.5
  weights = {key: x.numpy() for key, x in network.state_dict().items()}
  params, state = torch_weights.convert(name, weights)
  images = np.random.default_rng(0).normal(size=(4, 64, 96, 3)).astype("f4")
  network.train(train)
  with torch.no_grad():
    expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
  apply = jax.jit(models.get(name, 10).apply, static_argnames="train")
  outputs, _ = apply(params, state, images, train=train)
  scale = float(expected.abs().max())
  np.testing.assert_allclose(
    outputs.logits / scale, expected.numpy() / scale, atol=2e-3
  )
