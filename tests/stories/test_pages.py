"""Every Python block of the README and of the guides runs as it stands, on small things."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import luthier as lt

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tune.md", "docs/compress.md")
GIVEN = """
from collections import OrderedDict
import torch
import luthier
from luthier import AskTell, Task
torch.manual_seed(0)

def net(width=16):
    parts = {"body": torch.nn.Linear(8, width), "act": torch.nn.ReLU(), "head": torch.nn.Linear(width, 3)}
    return torch.nn.Sequential(OrderedDict(parts))

x = torch.randn(48, 8)
y = x[:, :3].argmax(1)
inputs, batches = x[:4], [(x[:24], y[:24]), (x[24:], y[24:])]
held_out = loader = train_loader = valid_loader = test_loader = batches
task = luthier.Task(train=(x, y), valid=(x, y), test=(x, y), metrics=["accuracy", "f1_macro"])
model, teacher, student = net(), net(), net(8)
columns = list("abcdefghijkl")
build = lambda **params: net()
train_one_epoch = validate = lambda network: 0.5

def objective(trial):
    value = sum(v for v in trial.params.values() if isinstance(v, float))
    trial.report(1, accuracy=-value, ms=value, mb=1.0, loss=value, error=value)
    return {"accuracy": -value, "ms": value, "mb": 1.0, "loss": value, "error": value}

space = luthier.Space(lr=luthier.Float(0.0, 1.0), width=luthier.Float(0.0, 1.0))
"""


class Small(SimpleNamespace):
    """Luthier with small budgets."""

    def __getattr__(self, name):
        return getattr(lt, name)

    @staticmethod
    def tune(objective, space, **how):
        how = {k: v for k, v in how.items() if k not in ("workers", "limits", "store")}
        return lt.tune(objective, space, **{**how, "trials": 6, "progress": False})

    @staticmethod
    def compress(*args, **how):
        inspect.signature(lt.compress).bind(*args, **how)
        return SimpleNamespace(best=SimpleNamespace(path="point"), report="report.html")

    @staticmethod
    def fit(*args, **how):
        return lt.fit(*args, **{**how, "epochs": 1, "progress": False})

    @staticmethod
    def distill(*args, **how):
        return lt.distill(*args, **{**how, "epochs": 1, "progress": False})


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    made: dict[str, object] = {}
    exec(GIVEN, made)
    how = {"minimize": "loss", "trials": 4, "store": "runs/studies.db", "progress": False}
    lt.tune(made["objective"], made["space"], name="digits-2024", **how)


def keras_file():
    """A folder with what the Keras block loads, and Keras."""
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras")
    layers = [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    keras.Sequential(layers).save("model.keras")
    return keras


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("page", "number"), [(page, i) for page in PAGES for i in range(len(blocks(page)))])
def test_a_block_runs_as_it_stands(page, number, folder):
    block = blocks(page)[number]
    names: dict[str, object] = {"__name__": "page", "study": None}
    exec(GIVEN, names)
    if "study." in block and "study =" not in block:
        names["study"] = Small.tune(names["objective"], names["space"], minimize="loss", replicate=2)
    if "AskTell" in block:  # goes on with the page's first space
        exec(blocks(page)[0], names)
    if "keras." in block:
        names["keras"] = keras_file()
    text = block.replace("import luthier as lt\n", "")
    exec(compile(text, f"{page}, block {number + 1}", "exec"), {**names, "lt": Small()})
    assert torch.is_grad_enabled()
