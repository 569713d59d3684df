"""Keras 3 models through the same doors as torch modules, and back."""

import importlib.util
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import luthier as lt
from luthier.errors import UsageError
from luthier.measure.heads import keras_gives_probabilities
from luthier.model.keras import KerasModule

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras models need Keras 3: pip install 'luthier[keras]'", allow_module_level=True)

ELSEWHERE = """
import sys, types
class Backend(types.ModuleType):
    backend = staticmethod(lambda: "jax")
keras = types.ModuleType("keras")
keras.Layer = type("Layer", (), {"built": True})
keras.backend = Backend("backend")
sys.modules["keras"] = keras
import torch, luthier as lt
try:
    lt.prune_neurons(keras.Layer(), torch.zeros(1, 2), ratio=0.5)
except lt.UsageError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "torch"
    return pytest.importorskip("keras")


@pytest.fixture
def dense(keras):
    """A built model, and the torch module of the same maths."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    )
    twin = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for layer, keras_layer in ((twin[0], model.layers[0]), (twin[2], model.layers[2])):
            layer.weight.copy_(keras_layer.kernel.value.T)
            layer.bias.copy_(keras_layer.bias.value)
    return model, twin


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 6, generator=generator)
    return x, x[:, :3].argmax(1)


def residual(keras):
    layers = keras.layers
    start = keras.Input((8, 8, 3))
    first = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(start)))
    x = layers.Add()([first, layers.Conv2D(16, 3, padding="same")(first)])
    x = layers.SeparableConv2D(32, 3, activation="relu")(layers.MaxPooling2D()(x))
    return keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))), torch.randn(3, 8, 8, 3)


def flat(keras):
    layers = keras.layers
    parts = [layers.Conv2DTranspose(8, 3, activation="relu"), layers.Flatten(), layers.Dense(32), layers.Dense(3)]
    return keras.Sequential([keras.Input((4, 4, 1)), *parts]), torch.randn(3, 4, 4, 1)


def recurrent(keras):
    layers = keras.layers
    parts = [layers.Embedding(50, 16), layers.LSTM(24), layers.Dense(3)]
    return keras.Sequential([keras.Input((12,)), *parts]), torch.randint(50, (3, 12))


def attention(keras):
    layers = keras.layers
    start = keras.Input((6, 16))
    x = layers.LayerNormalization()(layers.Add()([layers.MultiHeadAttention(4, 8)(start, start), start]))
    x = layers.Add()([x, layers.Dense(16)(layers.Dense(64, activation="gelu")(x))])
    return keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))), torch.randn(3, 6, 16)


@pytest.mark.parametrize("make", [residual, flat, recurrent, attention])
def test_a_cut_keras_model_is_a_keras_model(keras, make, tmp_path):
    model, x = make(keras)
    before = model.get_weights()
    pruned = lt.prune_neurons(model, x, ratio=0.5)
    assert pruned.target == "module", pruned
    small = pruned.model.to_keras()
    assert small.count_params() < 0.65 * model.count_params()
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras")
    graph = lt.prune_neurons(model, x, ratio=0.5, target="graph")
    for other in (small(x), again(x), graph.model.eval()(x)):
        assert torch.allclose(pruned.model.eval()(x), other, atol=1e-5)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_a_keras_model_scores_as_the_torch_module_of_the_same_weights(dense, data):
    names = ["accuracy", "f1_macro", "auroc", "perplexity"]
    batches = [tuple(t[:40] for t in data), tuple(t[40:] for t in data)]
    model, twin = (lt.evaluate(m, batches, names) for m in dense)
    assert model == pytest.approx(twin, abs=1e-5)


@pytest.mark.parametrize("way", ["activation", "layer", "operation", "inside", "wrapped", "own"])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_keras_head_that_gives_probabilities_is_scored_as_its_logits(keras, data, way, head):
    keras.utils.set_random_seed(0)
    layers, width = keras.layers, 3 if head == "softmax" else 1
    start, dense = keras.Input((6,)), layers.Dense(width)
    plain = keras.Model(start, dense(start))
    copy = layers.Dense(width, activation=head)
    model = {
        "activation": lambda: keras.Model(start, copy(start)),
        "layer": lambda: keras.Sequential([plain, layers.Activation(head)]),
        "operation": lambda: keras.Model(start, getattr(keras.ops, head)(plain(start))),
        "inside": lambda: keras.Sequential([keras.Input((6,)), keras.Sequential([keras.Input((6,)), copy])]),
        "wrapped": lambda: KerasModule(keras.Model(start, copy(start))),
        "own": lambda: _own(keras, plain, head),
    }[way]()
    if copy.built:
        copy.set_weights(dense.get_weights())
    model = KerasModule(keras.Model(start, copy(start))) if way == "wrapped" else model
    y = data[1] if head == "softmax" else data[1] % 2
    names = ["accuracy", "f1_macro", "auroc", "perplexity"]
    expected = lt.evaluate(plain, (data[0], y), names)
    assert lt.evaluate(model, (data[0], y), names) == pytest.approx(expected, abs=1e-5)
    assert keras_gives_probabilities(model) == (way not in ("wrapped", "own"))
    assert not keras_gives_probabilities(plain)


def test_what_only_looks_like_a_head_gives_no_probabilities(keras):
    layers = keras.layers
    for last in (layers.LSTM(1, activation="sigmoid"), layers.Dense(1, activation="tanh")):
        assert not keras_gives_probabilities(keras.Sequential([keras.Input((5, 3)), last]))
    each = layers.TimeDistributed(layers.Dense(4, activation="softmax"))
    assert keras_gives_probabilities(keras.Sequential([keras.Input((5, 3)), each]))


def _own(keras, plain, head):
    class Own(keras.Model):
        def call(self, x):
            return getattr(keras.ops, head)(plain(x))

    return Own()


def test_masks_hold_on_a_keras_model(dense, data):
    model, _ = dense
    masked = lt.prune_weights(model, ratio=0.75)
    task = lt.Task(train=data, valid=data)
    lt.fit(masked, task, epochs=2, lr=1e-2, weight_decay=0.1, progress=False)
    small = masked.finalize().to_keras()
    kernels = [w for w in small.get_weights() if w.ndim == 2]
    assert sum((k == 0).sum() for k in kernels) == round(0.75 * sum(k.size for k in kernels))
    assert torch.allclose(small(data[0]), masked.model.eval()(data[0]), atol=1e-6)


def test_what_lies_the_other_way_in_keras_or_is_looked_at_again_is_refused_with_the_way_out(dense, data):
    model, _ = dense
    with pytest.raises(UsageError, match="the other way"):
        lt.prune_weights(model, pattern="2:4")
    for make in (lt.Rewind, lambda m: lt.GradualPruning(m, lt.Schedule(0.5, steps=1))):
        with pytest.raises(UsageError, match="KerasModule"):
            make(model)
    network = KerasModule(model)
    prune = lt.GradualPruning(network, lt.Schedule(0.5, steps=1))
    lt.fit(network, lt.Task(train=data, valid=data), epochs=1, keep="last", progress=False, on_epoch=prune)
    kernels = [w for w in network.to_keras().get_weights() if w.ndim == 2]
    assert sum((k == 0).sum() for k in kernels) == sum(k.size for k in kernels) // 2


def test_training_reaches_the_keras_model_itself_and_its_batch_norms(keras, data):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32), layers.BatchNormalization(), layers.Dense(3)])
    task = lt.Task(train=data, valid=data, batch_size=16)
    how = {"epochs": 10, "lr": 1e-2, "progress": False}
    assert lt.fit(model, task, **how) is model
    assert lt.evaluate(model, data)["accuracy"] > 0.9
    assert abs(model.layers[1].moving_mean.numpy()).max() > 0.01
    student = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    assert lt.distill(student, model, task, losses={"kl": 1.0}, **{**how, "lr": 0.1}) is student
    agreed = student(data[0]).argmax(1) == model(data[0]).argmax(1)
    assert agreed.float().mean() > 0.9


def test_dropout_drops_in_training_only(dense, data):
    network = lt.prune_weights(dense[0], ratio=0.0).finalize()
    x = data[0][:8]
    assert torch.equal(network.eval()(x), network(x))
    assert not torch.equal(network.train()(x), network(x))


def test_a_layer_that_is_frozen_is_cut_along_and_stays_frozen(keras):
    model, x = residual(keras)
    model.layers[1].trainable = False
    pruned = lt.prune_neurons(model, x, ratio=0.5)
    kernel = next(pruned.model.children()).kernel
    assert kernel.shape[-1] == 8
    assert not kernel.requires_grad


def test_files_of_a_keras_model(dense, data, tmp_path):
    model, twin = dense
    x = data[0][:4]
    loaded = lt.load(lt.save(model, tmp_path / "k.luthier", inputs=x))
    assert torch.allclose(loaded(x), twin(x), atol=1e-6)
    assert lt.export_onnx(model, tmp_path / "k.onnx", x).error < 1e-4
    pruned = lt.prune_neurons(model, x, ratio=0.5)
    back = lt.load(lt.save(pruned, tmp_path / "p.luthier"), into=model)
    assert torch.allclose(back.to_keras()(x), pruned.model(x), atol=1e-6)
    assert lt.profile(model, x, rounds=2).macs == 6 * 16 + 16 * 3


def test_a_pickled_keras_module_computes_the_same(dense, data):
    network = lt.prune_weights(dense[0], ratio=0.5).finalize()
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(again(data[0]), network(data[0]))


def test_keras_on_another_backend_is_refused_with_the_way_out():
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=True)
    assert "KERAS_BACKEND=torch" in done.stdout
    assert "load_model" in done.stdout


def test_what_keras_cannot_make_anew_keeps_the_graph(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)

        def call(self, x):
            return self.two(self.one(x))

    model, x = Own(), torch.randn(4, 6)
    with pytest.raises(UsageError, match="no weights yet"):
        lt.prune_neurons(model, x, ratio=0.5)
    expected = model(x)
    pruned = lt.prune_neurons(model, x, ratio=0.5)
    assert pruned.target == "graph"
    assert pruned.model(x).shape == expected.shape


@pytest.mark.slow
def test_a_keras_model_is_compressed(keras, tmp_path):
    keras.utils.set_random_seed(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 12, 12, 1, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long()
    parts = [keras.layers.Conv2D(64, 3, activation="relu"), keras.layers.Conv2D(64, 3, activation="relu")]
    model = keras.Sequential([keras.Input((12, 12, 1)), *parts, keras.layers.Flatten(), keras.layers.Dense(2)])
    task = lt.Task(train=(x, y), valid=(x, y), test=(x, y))
    how = {"trials": 2, "out": tmp_path / "run", "epochs": (1, 1), "progress": False}
    result = lt.compress(model, task, budget={"macs": 0.7}, **how)
    assert result.front
    assert all(point.ratio["macs"] < 0.7 for point in result.front)
    small = lt.load(result.front[0].path / "model.luthier", into=model).to_keras()
    assert small.count_params() == result.front[0].cost["parameters"]
