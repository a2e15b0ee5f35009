"""CKD in PyTorch, to compare speed and accuracy with.

  python experiments/peers/pytorch_ckd.py --mode=published|strong
    [--student=resnet8] [--pairs=64] [--steps=200] [--data=FILE.npz]

published: as arXiv 2311.02253 is run. A loader's workers draw pairs from a list
of 100,000, crop and flip each image as a PIL image, and the two sides go
through the student one after the other. strong: what PyTorch can do. Images lie
on the device as uint8 and are augmented there in one batch, 2 x pairs distinct
images go through the student once (channels_last, bfloat16 on a GPU, compiled
with CUDA graphs where there are any), and their pairs are compared.

Without --data on noise, for speed: prints one JSON line, compile and warm-up
apart. With it (x_train, y_train, teacher: the budgeted images and the teacher's
answers; x_val, y_val, x_test, y_test) it trains `steps` steps at a constant
rate, validates every 100 and prints accuracies by time.
"""

import argparse
import json
import os
import random
import statistics
import time

import networks
import numpy as np
import torch
from PIL import Image

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
GROUPS, PAD, SIZE = 100_000, 4, 32


def normalised(images: torch.Tensor) -> torch.Tensor:
  """uint8[n, 3, h, w] -> float."""
  mean, std = (
    torch.tensor(x, device=images.device).view(1, 3, 1, 1) for x in (MEAN, STD)
  )
  return (images.float() / 255 - mean) / std


class Pairs(torch.utils.data.Dataset):
  """Pairs of images with their labels and answers, cropped and flipped."""

  def __init__(self, images, labels, answers, seed: int):
    self.images, self.labels, self.answers = images, labels, answers
    draw, found = random.Random(seed), set()
    while len(found) < min(GROUPS, len(images) * (len(images) - 1)):
      found.add(tuple(draw.sample(range(len(images)), 2)))
    self.pairs = sorted(found)

  def __len__(self) -> int:
    return len(self.pairs)

  def view(self, row: int) -> torch.Tensor:
    image = Image.fromarray(self.images[row])
    larger = Image.new("RGB", (SIZE + 2 * PAD, SIZE + 2 * PAD))
    larger.paste(image, (PAD, PAD))
    left, top = (int(x) for x in torch.randint(2 * PAD + 1, (2,)))
    image = larger.crop((left, top, left + SIZE, top + SIZE))
    if torch.rand(()) < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return normalised(pixels[None])[0]

  def __getitem__(self, number: int):
    sides = self.pairs[number]
    return (
      *(self.view(row) for row in sides),
      *(int(self.labels[row]) for row in sides),
      *(torch.from_numpy(self.answers[row]).float() for row in sides),
    )


def comparison(first, second, labels, answers):
  """MSE of differences, against the teacher's and against the labels'."""
  mine = first - second
  one, other = (
    torch.nn.functional.one_hot(x, mine.shape[1]).float() for x in labels
  )
  mse = torch.nn.functional.mse_loss
  return mse(mine, answers[0] - answers[1]) + mse(mine, one - other)


def published(network, optimizer, data, pairs: int, seed: int, device):
  """Endless steps; each call makes one."""
  loader = torch.utils.data.DataLoader(
    Pairs(*data, seed),
    batch_size=pairs,
    shuffle=True,
    drop_last=True,
    num_workers=min(8, len(os.sched_getaffinity(0))),
    persistent_workers=True,
    pin_memory=device.type == "cuda",
  )

  def batches():
    while True:
      yield from loader

  coming = batches()

  def step():
    parts = [x.to(device, non_blocking=True) for x in next(coming)]
    first, second, *rest = parts
    loss = comparison(network(first), network(second), rest[:2], rest[2:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

  return step


def strong(network, optimizer, data, pairs: int, seed: int, device):
  """Endless steps; each call makes one."""
  del seed
  images, labels, answers = (torch.from_numpy(x).to(device) for x in data)
  images = images.permute(0, 3, 1, 2).contiguous()
  labels, answers = labels.long(), answers.float()
  network.to(memory_format=torch.channels_last)
  places = torch.arange(SIZE, device=device)
  is_gpu = device.type == "cuda"

  def loss_of(rows):
    larger = torch.nn.functional.pad(images[rows], (PAD,) * 4)
    corner = torch.randint(2 * PAD + 1, (2, len(rows), 1), device=device)
    down, across = corner[0] + places, corner[1] + places
    flip = torch.rand(len(rows), 1, device=device) < 0.5
    across = torch.where(flip, across.flip(1), across)
    order = torch.arange(len(rows), device=device)[:, None, None]
    views = larger.permute(0, 2, 3, 1)[
      order, down[:, :, None], across[:, None]
    ].permute(0, 3, 1, 2)
    views = normalised(views).to(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=is_gpu):
      logits = network(views)
    sides = [x.chunk(2) for x in (logits.float(), labels[rows], answers[rows])]
    return comparison(*sides[0], sides[1], sides[2])

  if is_gpu:
    loss_of = torch.compile(loss_of, mode="reduce-overhead")

  def step():
    rows = torch.randperm(len(images), device=device)[: 2 * pairs]
    loss = loss_of(rows)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step


MODES = {"published": published, "strong": strong}


def wait(device) -> None:
  if device.type == "cuda":
    torch.cuda.synchronize()


@torch.no_grad()
def accuracy(network, images, labels, device) -> float:
  """In percent, of uint8[n, h, w, 3]."""
  network.eval()
  hits = 0
  for start in range(0, len(images), 500):
    part = torch.from_numpy(images[start : start + 500]).to(device)
    best = network(normalised(part.permute(0, 3, 1, 2))).argmax(1).cpu()
    hits += int((best == torch.from_numpy(labels[start : start + 500])).sum())
  network.train()
  return 100 * hits / len(images)


def noise(rows: int = 2000, classes: int = 100):
  draw = np.random.default_rng(0)
  pixels = draw.integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8)
  labels = draw.integers(0, classes, rows)
  return pixels, labels, draw.normal(size=(rows, classes)).astype("f2")


def speed(step, flags, device) -> dict:
  """Seconds a step: the median of five stretches, after a warm-up."""
  for _ in range(flags.warm_up):
    step()
  wait(device)
  times = []
  for _ in range(5):
    start = time.perf_counter()
    for _ in range(max(1, flags.steps // 5)):
      step()
    wait(device)
    times.append((time.perf_counter() - start) / max(1, flags.steps // 5))
  each = statistics.median(times)
  return {
    "milliseconds_a_step": round(1e3 * each, 3),
    "images_per_second": round(2 * flags.pairs / each, 1),
  }


def learn(network, step, arrays, flags, device) -> dict:
  """Trains; accuracies at the best validation, and the seconds to each."""
  path, seconds = [], 0.0
  for turn in range(1, flags.steps + 1):
    start = time.perf_counter()
    step()
    wait(device)
    seconds += time.perf_counter() - start
    if turn % 100 == 0 or turn == flags.steps:
      val = accuracy(network, arrays["x_val"], arrays["y_val"], device)
      test = accuracy(network, arrays["x_test"], arrays["y_test"], device)
      path.append({"step": turn, "seconds": seconds, "val": val, "test": test})
  best = max(path, key=lambda point: point["val"])
  return {
    "test_accuracy": best["test"],
    "val_accuracy": best["val"],
    "best_step": best["step"],
    "train_seconds": round(seconds, 2),
    "path": path,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--mode", choices=MODES, required=True)
  parser.add_argument("--student", default="resnet8")
  parser.add_argument("--pairs", type=int, default=64)
  parser.add_argument("--steps", type=int, default=200)
  parser.add_argument("--warm_up", type=int, default=10)
  parser.add_argument("--learning_rate", type=float, default=0.1)
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--data", help=".npz; without it noise, for speed")
  flags = parser.parse_args()
  torch.manual_seed(flags.seed)
  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  arrays = {}
  if flags.data:
    with np.load(flags.data, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    data = arrays["x_train"], arrays["y_train"], arrays["teacher"]
  else:
    data = noise()
  # Shapes never change: let cuDNN look for the fastest of its algorithms.
  torch.backends.cudnn.benchmark = flags.mode == "strong"
  network = networks.make(flags.student, data[2].shape[1]).to(device)
  optimizer = torch.optim.SGD(
    network.parameters(),
    flags.learning_rate,
    0.9,
    weight_decay=5e-4,
    fused=flags.mode == "strong",
  )
  step = MODES[flags.mode](
    network, optimizer, data, flags.pairs, flags.seed, device
  )
  if flags.data:
    result = learn(network, step, arrays, flags, device)
  else:
    result = speed(step, flags, device)
  name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
  facts = {
    "peer": flags.mode,
    "student": flags.student,
    "pairs": flags.pairs,
    "steps": flags.steps,
    "seed": flags.seed,
    "device": name,
    "cores": len(os.sched_getaffinity(0)),
    "torch": torch.__version__,
  }
  print(json.dumps(facts | result))


if __name__ == "__main__":
  main()
