"""The public face, called as the design's contract writes it: every name once, on small things."""

import json

import pytest
import torch
from torch import nn

import luthier as lt

pytestmark = pytest.mark.slow


def objective(trial):
    for epoch in range(10):
        acc, ms = 1 - (trial["lr"] - 0.01) ** 2 - 1 / (epoch + 1), trial["width"] / 100
        trial.report(epoch, accuracy=acc, latency_ms=ms)
    return {"accuracy": acc, "latency_ms": ms, "size_mb": trial["width"] / 256}


def _space():
    return lt.Space(
        lr=lt.Float(1e-4, 1e-1, log=True),
        width=lt.Int(16, 256, log=True),
        optimizer=lt.Choice(["sgd", "adamw"]),
        momentum=lt.Float(0.0, 0.99).when(optimizer="sgd"),
        where=[lambda p: p["width"] * p["lr"] < 10],
    )


def test_tuning(tmp_path):
    store = str(tmp_path / "runs" / "studies.db")
    study = lt.tune(
        objective,
        _space(),
        objectives={"accuracy": "max", "latency_ms": "min"},
        constraints={"size_mb": "<= 1.0"},
        algorithm="auto",
        stop=lt.stop.ASHA(min_steps=1, max_steps=10),
        trials=20,
        timeout=None,
        target=None,
        workers=2,
        executor="processes",
        store=store,
        name="digits",
        seed=0,
        deterministic=False,
        limits=lt.Limits(seconds=600, memory_gb=4),
        callbacks=[],
        progress=False,
    )
    assert study.best.metrics["accuracy"] > 0.85
    assert study.best in study.front
    assert len(study.trials) == len(study.to_frame()) == 20
    assert set(study.importance()) == set(_space().names)
    study.report(tmp_path / "out.html")
    assert "digits" in (tmp_path / "out.html").read_text()
    assert len(lt.load_study(store, "digits").trials) == 20


def test_ask_and_tell():
    search = lt.AskTell(_space(), algorithm="bayes", minimize="loss", seed=0)
    search.tell(search.ask(), 0.3)
    search.tell(search.ask(), {"loss": 0.5})
    search.tell(search.ask(), failed="out of memory")
    search.add({"lr": 0.01, "width": 32, "optimizer": "adamw"}, 0.1)
    assert search.best.metrics == {"loss": 0.1}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x.sum(1) > 0).long()
    loader = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 256, 64)]
    metrics = ["accuracy", "f1_macro", "recall_macro"]
    task = lt.Task(train=loader, valid=loader, test=loader, loss="cross_entropy", metrics=metrics)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    model.add_module("head", nn.Linear(64, 2))
    return lt.fit(model, task, epochs=10, optimizer="adamw", lr=1e-3, progress=False), task, x[:4]


@pytest.mark.parametrize(
    "how",
    [
        {"ratio": 0.9, "criterion": "magnitude", "scope": "global"},
        {"threshold": 0.01},
        {"pattern": "2:4"},
        {"ratio": 0.5, "criterion": "gradient", "loss": "cross_entropy"},
        {"ratio": 0.5, "criterion": "wanda"},
    ],
)
def test_pruning_weights(trained, how):
    model, task, _ = trained
    data = {"data": task.train} if "criterion" in how and how["criterion"] != "magnitude" else {}
    masked = lt.prune_weights(model, **how, **data)
    zeros = sum(int((m.weight == 0).sum()) for m in masked.model if isinstance(m, nn.Linear))
    assert zeros == sum(int((~m).sum()) for m in masked.masks.values()) > 0


@pytest.mark.parametrize(
    "how",
    [
        {"ratio": 0.5, "criterion": "l2", "allocate": "uniform", "protect": ["head"], "multiple": 1},
        {"threshold": 0.3},
        {"budget": {"macs": 0.5}},
        {"ratio": 0.5, "criterion": "taylor", "loss": "cross_entropy"},
        {"ratio": 0.5, "criterion": "activation"},
        {"ratio": 0.5, "compensate": "mean"},
    ],
)
def test_pruning_neurons(trained, how, tmp_path):
    model, task, inputs = trained
    wants_data = how.get("criterion") in ("taylor", "activation") or "compensate" in how
    pruned = lt.prune_neurons(model, inputs, **how, **({"data": task.train} if wants_data else {}))
    assert all(proof.passed for proof in pruned.check)
    assert pruned.coverage.parameters > 0.5
    sizes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, parameter in pruned.model.named_parameters():
        kept = pruned.plan.kept[name]
        assert tuple(parameter.shape) == tuple(
            s if k is None else len(k) for s, k in zip(sizes[name], kept, strict=True)
        )
    lt.save(pruned, tmp_path / "model.luthier")
    loaded = lt.load(tmp_path / "model.luthier")
    assert torch.allclose(loaded(inputs), pruned.model.eval()(inputs), atol=1e-5)


def test_the_rest_of_the_verbs(trained, tmp_path):
    model, task, inputs = trained
    assert "can be cut" in str(lt.profile(model, inputs))
    pruned = lt.prune_neurons(model, inputs, ratio=0.5)
    losses = {"kl": 0.9, "task": 0.1}
    lt.distill(pruned.model, model, task, losses=losses, temperature=4.0, epochs=2, progress=False)
    assert lt.export_onnx(pruned, tmp_path / "model.onnx", inputs).error < 1e-5
    assert set(lt.evaluate(model, task.test, metrics=["accuracy", "recall_macro"])) == {"accuracy", "recall_macro"}


def test_compressing(trained, tmp_path):
    model, task, _ = trained
    result = lt.compress(
        model,
        task,
        budget={"latency": 0.95, "accuracy": -0.2},
        trials=3,
        timeout=None,
        workers=2,
        out=tmp_path / "runs" / "digits",
        progress=False,
        batch_size=512,
    )
    assert result.report.is_file()
    for point in result.front:
        assert {f.name for f in point.path.iterdir()} == {"model.onnx", "model.luthier", "plan.json", "metrics.json"}
        assert json.loads((point.path / "metrics.json").read_text())["test"] == point.test
    assert result.best is None or result.best in result.front
    assert "Pareto front" in str(result)
