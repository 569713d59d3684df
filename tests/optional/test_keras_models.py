"""Keras 3 models through the same doors as torch modules."""

import importlib.util
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras models need Keras 3: pip install 'luthier[keras]'", allow_module_level=True)

SCRIPT = """
import keras, numpy as np, torch
from torch import nn
import luthier as lt

torch.manual_seed(0)
x, y = torch.randn(60, 6), torch.randint(3, (60,))
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.5),
                          keras.layers.Dense(3)])
twin = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
with torch.no_grad():
    for layer, (kernel, bias) in zip((twin[0], twin[2]), zip(*[iter(model.get_weights())] * 2)):
        layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layer.bias.copy_(torch.from_numpy(bias))
names = ["accuracy", "f1_macro", "auroc", "perplexity"]
batches = [(x[:40], y[:40]), (x[40:], y[40:])]
a, b = (lt.evaluate(m, batches, names) for m in (model, twin))
assert all(abs(a[n] - b[n]) < 1e-5 for n in names), (a, b)
print("same")
"""


@pytest.mark.slow
def test_a_keras_model_scores_as_the_torch_module_of_the_same_weights():
    given = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=given)
    assert "same" in done.stdout, done.stderr[-3000:]
