"""Fashion-MNIST and Reuters R8, from where the package managers put them."""

import gzip
from pathlib import Path

import numpy as np
import torch

FASHION = Path("/usr/share/datasets/fashion-mnist")


def fashion(images: int, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Train (``images`` of the first 58,000), valid (the last 2,000) and test (10,000), as tensors."""
    if not FASHION.is_dir():
        raise SystemExit("Fashion-MNIST is missing: apt-get install dataset-fashion-mnist")
    x, y = _read("train")
    test = _read("t10k")
    chosen = torch.randperm(58_000, generator=torch.Generator().manual_seed(seed))[:images]
    return {"train": (x[chosen], y[chosen]), "valid": (x[58_000:], y[58_000:]), "test": test}


def _read(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.frombuffer(
        gzip.decompress((FASHION / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(gzip.decompress((FASHION / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    x = torch.from_numpy(images.reshape(-1, 1, 28, 28).astype(np.float32))
    return (x / 255 - 0.286) / 0.353, torch.from_numpy(labels.astype(np.int64))
