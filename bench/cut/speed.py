"""Real speed: how much of what a cut saves in MACs shows as latency in ONNX Runtime.

    python bench/cut/speed.py [NAME ...]

Each network is cut at ratios 0.5 and 0.3, exported with the dense one, and both are timed in turn: one thread, the CPU
time of the thread that runs the session, medians of ratios with intervals. Needs pytorchcv for the two CNNs, beside
Luthier's ``torch`` and ``onnx`` extras.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

import luthier as lt
from luthier.measure.latency import measure
from luthier.measure.onnx_file import write_onnx
from luthier.measure.table import Predictor, Table
from luthier.model import analyse


def convnet(module: str, name: str) -> nn.Module:
    """A network of pytorchcv, untrained."""
    import importlib

    made: nn.Module = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)(pretrained=False)
    return made


class Encoder(nn.Module):
    """Six layers of BERT's size: 768 wide, 12 heads, 3072 between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 768)
        layer = nn.TransformerEncoderLayer(768, 12, 3072, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(768, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    """Two LSTM layers of 512."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(256, 512, 2, batch_first=True)
        self.head = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])


class Patches(nn.Module):
    """Images as 196 patches, and four layers of 384 over them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.places = nn.Conv2d(3, 384, 16, 16), nn.Parameter(torch.randn(1, 196, 384) * 0.02)
        layer = nn.TransformerEncoderLayer(384, 6, 1536, activation="gelu", batch_first=True, norm_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.Linear(384, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.patch(x).flatten(2).transpose(1, 2) + self.places).mean(1))


class Speech(nn.Module):
    """A convolution over time, then two GRU layers of 384 in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(80, 256, 5, 2, 2), nn.GRU(256, 384, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(768, 30)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.conv(x).relu().transpose(1, 2))[0])


NETWORKS = {
    "ResNet-18": (lambda: convnet("resnet", "resnet18"), lambda: torch.randn(1, 3, 224, 224)),
    "MobileNetV2": (lambda: convnet("mobilenetv2", "mobilenetv2_w1"), lambda: torch.randn(1, 3, 224, 224)),
    "BERT, 6 layers": (Encoder, lambda: torch.randint(0, 1000, (1, 128))),
    "LSTM, 2 layers": (Recurrent, lambda: torch.randn(1, 32, 256)),
    "ViT, 4 layers": (Patches, lambda: torch.randn(1, 3, 224, 224)),
    "Conv + GRU": (Speech, lambda: torch.randn(1, 80, 100)),
}


def rows(name: str, table: Table) -> None:
    """The lines of one network."""
    build, inputs = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build().eval(), inputs()
    analysis = analyse(model, x)
    latency = Predictor(analysis, table)
    for ratio, multiple in ((0.5, 1), (0.5, 8), (0.3, 8)):
        pruned = lt.prune_neurons(model, x, ratio=ratio, multiple=multiple)
        predicted = latency(pruned.plan.groups) / latency()
        with tempfile.TemporaryDirectory() as folder:
            files = {"dense": Path(folder) / "dense.onnx", "cut": Path(folder) / "cut.onnx"}
            write_onnx(model, files["dense"], x)
            write_onnx(pruned.model.eval(), files["cut"], x)
            found = measure(files, [x], rounds=11)
        before, after = pruned.plan.macs
        now = found["cut"]
        measured = f"{now.ratio:.3f} [{now.ratio_low:.3f}, {now.ratio_high:.3f}]"
        cells = (
            name,
            ratio,
            multiple,
            f"{after / before:.3f}",
            measured,
            f"{predicted:.3f}",
            f"{found['dense'].ms:.1f}",
        )
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = Table.here()
    print(
        "| network | ratio | multiple | MACs | latency [95 %] | predicted | dense ms |\n|---|---|---|---|---|---|---|"
    )
    for name in sys.argv[1:] or NETWORKS:
        rows(name, table)
        table.save()


if __name__ == "__main__":
    main()
