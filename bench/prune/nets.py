"""A small residual network for images, and a transformer encoder of two layers for text."""

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
    """Eight layers, 2.3 million multiply-adds on a 28 x 28 image; ``width`` scales every one of them."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        a, b, c = (max(2, round(width * w)) for w in (16, 32, 64))
        self.stem = nn.Sequential(nn.Conv2d(1, a, 3, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU())
        self.layer1, self.layer2, self.layer3 = Block(a, a, a, 1), Block(a, b, b, 2), Block(b, c, c, 2)
        self.head = nn.Linear(c, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Layer(nn.Module):
    def __init__(self, size: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * heads * 16), nn.Linear(heads * 16, size)
        self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, 16).permute(2, 0, 3, 1, 4).unbind(0)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).reshape(n, t, self.heads * 16))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Two layers over 64 words; ``width`` scales features, heads and hidden units."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        size, heads, hidden = max(8, round(64 * width)), max(1, round(4 * width)), max(8, round(256 * width))
        self.words, self.places = nn.Embedding(6000, size), nn.Parameter(0.02 * torch.randn(64, size))
        self.layers = nn.ModuleList(Layer(size, heads, hidden) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = (x != 0).float()
        mask = (1 - known[:, None, None, :]) * -1e4
        h = self.words(x) + self.places
        for layer in self.layers:
            h = layer(h, mask)
        weight = known[:, :, None]
        return self.head((self.norm(h) * weight).sum(1) / weight.sum(1).clamp(min=1))
