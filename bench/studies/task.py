"""The task of the benches of early stopping; imports nothing of Luthier, so that the peers can run it, too.

scikit-learn's digits, a multi-layer perceptron, epochs as steps: accuracy up, log10 of the parameters down.
"""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EPOCHS = 27
X, Y = load_digits(return_X_y=True)
TRAIN_X, TEST_X, TRAIN_Y, TEST_Y = train_test_split(X / 16.0, Y, test_size=0.4, random_state=0)
BATCHES = [16, 64, 256]


def log_weights(params: dict) -> float:
    sizes = [64, *(params["width"],) * params["depth"], 10]
    return math.log10(sum(a * b + b for a, b in itertools.pairwise(sizes)))


def curve(params: dict) -> list[float]:
    """Test accuracy after each epoch; the same parameters give the same curve."""
    warnings.simplefilter("ignore")
    net = MLPClassifier(
        (params["width"],) * params["depth"],
        learning_rate_init=params["lr"],
        alpha=params["alpha"],
        batch_size=params["batch"],
        random_state=0,
    )
    out = []
    for _ in range(EPOCHS):
        net.partial_fit(TRAIN_X, TRAIN_Y, classes=np.arange(10))
        out.append(float(net.score(TEST_X, TEST_Y)))
    return out
