"""A small residual network, 2.3 million multiply-adds on a 28 x 28 image at its full width."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, before: int, after: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.skip = nn.Sequential()
        if stride != 1 or before != after:
            self.skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.skip(x))


class ResNet(nn.Module):
    """Eight layers; ``width`` scales every one of them."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        a, b, c = (max(2, round(width * w)) for w in (16, 32, 64))
        self.stem = nn.Sequential(nn.Conv2d(1, a, 3, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU())
        self.layer1, self.layer2, self.layer3 = Block(a, a, a, 1), Block(a, b, b, 2), Block(b, c, c, 2)
        self.head = nn.Linear(c, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.head(x.mean((2, 3)))
