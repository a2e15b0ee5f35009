"""The students in PyTorch, from their papers: what the peers train."""

import torch
from torch import nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
  layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
  nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
  return layer


class Basic(nn.Module):
  """Two convolutions and a shortcut (option B)."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.conv1, self.norm1 = (
      conv(inputs, outputs, 3, stride),
      nn.BatchNorm2d(outputs),
    )
    self.conv2, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
    self.shortcut = nn.Identity()
    if stride > 1 or inputs != outputs:
      self.shortcut = nn.Sequential(
        conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    y = torch.relu(self.norm1(self.conv1(x)))
    return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Wide(nn.Module):
  """Norm, ReLU, convolution, twice; the shortcut leaves from the first ReLU."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.norm1, self.conv1 = (
      nn.BatchNorm2d(inputs),
      conv(inputs, outputs, 3, stride),
    )
    self.norm2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
    self.project = (
      conv(inputs, outputs, 1, stride) if inputs != outputs else None
    )

  def forward(self, x):
    active = torch.relu(self.norm1(x))
    y = self.conv2(torch.relu(self.norm2(self.conv1(active))))
    return y + (self.project(active) if self.project else x)


class Head(nn.Module):
  """The mean over the image, and a linear layer."""

  def __init__(self, width: int, classes: int, before=None):
    super().__init__()
    self.before = before or nn.Identity()
    self.fc = nn.Linear(width, classes)

  def forward(self, x):
    return self.fc(self.before(x).mean((2, 3)))


def stages(block, widths, blocks: int) -> list[nn.Module]:
  stem, *widths = widths
  layers, inputs = [], stem
  for stage, width in enumerate(widths):
    for i in range(blocks):
      stride = 2 if stage and not i else 1
      layers.append(block(inputs, width, stride))
      inputs = width
  return layers


def make(name: str, classes: int) -> nn.Module:
  """resnetN, wrn_N_W or vgg8."""
  if name == "vgg8":
    layers, inputs = [], 3
    for block, width in enumerate((64, 128, 256, 512, 512)):
      if 0 < block < 4:
        layers.append(nn.MaxPool2d(2))
      layers += [
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
      ]
      inputs = width
    return nn.Sequential(*layers, Head(512, classes))
  if name.startswith("wrn_"):
    depth, width = map(int, name.split("_")[1:])
    widths = (16, 16 * width, 32 * width, 64 * width)
    last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
    body = stages(Wide, widths, (depth - 4) // 6)
    return nn.Sequential(conv(3, 16), *body, Head(widths[-1], classes, last))
  depth = int(name.removeprefix("resnet"))
  stem = conv(3, 16), nn.BatchNorm2d(16), nn.ReLU()
  body = stages(Basic, (16, 16, 32, 64), (depth - 2) // 6)
  return nn.Sequential(*stem, *body, Head(64, classes))
