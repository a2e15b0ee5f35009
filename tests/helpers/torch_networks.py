"""The ImageNet networks in PyTorch, with torchvision's names."""

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
  def __init__(self, blocks, expansion, classes):
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
  def __init__(self, classes):
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


def reference(name, classes):
  """A network by its name in our zoo."""
  if name == "mobilenet_v1":
    return MobileNet(classes)
  blocks = (2, 2, 2, 2) if "18" in name else (3, 4, 6, 3)
  return ResNet(blocks, 4 if "50" in name else 1, classes)
