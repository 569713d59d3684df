"""Compress a residual network that reads handwritten digits.

luthier compress examples/digits.py --budget latency=0.5

The file says what to compress (`model`), on what (`task`) and how to train it first (`recipe`); everything else is
the command's.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import luthier as lt

WIDTH = 64  # wide enough that ONNX Runtime's fixed cost per call does not hide what pruning gains

recipe = {"epochs": 15, "lr": 2e-3, "weight_decay": 0.05}


class Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inside, h, w) -> (n, outside, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A small residual network in three stages."""

    def __init__(self, width: int = WIDTH, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stage1 = Block(width, width)
        self.stage2 = Block(width, 2 * width, stride=2)
        self.stage3 = Block(2 * width, 4 * width, stride=2)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images of shape (n, 1, 8, 8) -> scores of shape (n, 10)."""
        y = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.head(y.mean((2, 3)))


def model() -> nn.Module:
    """The network, not yet trained."""
    torch.manual_seed(0)
    return DigitNet()


def task() -> lt.Task:
    """1,797 images of 8 x 8 pixels: 60 % to learn from, 20 % to choose by, 20 % touched once at the end."""
    images, digits = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(digits)
    learn, rest = train_test_split(range(len(y)), test_size=0.4, stratify=y, random_state=0)
    choose, final = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    return lt.Task(
        train=(x[learn], y[learn]),
        valid=(x[choose], y[choose]),
        test=(x[final], y[final]),
        loss="cross_entropy",
        metrics=["accuracy", "f1_macro", "recall_macro"],
    )
