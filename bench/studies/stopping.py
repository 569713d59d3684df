"""Early stopping with two objectives on a real task: how much of the front is kept for how many epochs.

    python bench/studies/stopping.py [trials]

scikit-learn's digits, a multi-layer perceptron, epochs as steps: accuracy up, parameters down. The same
proposals run once to the end and once under each rule; Optuna, which refuses to prune with several
objectives, stands where the first row stands.
"""

from __future__ import annotations

import itertools
import sys
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import luthier as lt

EPOCHS = 27
X, Y = load_digits(return_X_y=True)
TRAIN_X, TEST_X, TRAIN_Y, TEST_Y = train_test_split(X / 16.0, Y, test_size=0.4, random_state=0)
SPACE = lt.Space(
    width=lt.Int(4, 256, log=True),
    depth=lt.Int(1, 2),
    lr=lt.Float(1e-4, 1e-1, log=True),
    alpha=lt.Float(1e-6, 1e-1, log=True),
    batch=lt.Ordinal([16, 64, 256]),
)
RULES = {
    "none": None,
    "asha": lt.stop.ASHA(min_steps=1, max_steps=EPOCHS),
    "hyperband": lt.stop.Hyperband(min_steps=1, max_steps=EPOCHS),
    "median": lt.stop.Median(),
}


def objective(trial):
    shape = (trial["width"],) * trial["depth"]
    net = MLPClassifier(
        shape, learning_rate_init=trial["lr"], alpha=trial["alpha"], batch_size=trial["batch"], random_state=trial.seed
    )
    sizes = [64, *shape, 10]
    weights = sum(a * b + b for a, b in itertools.pairwise(sizes))
    for epoch in range(1, EPOCHS + 1):
        net.partial_fit(TRAIN_X, TRAIN_Y, classes=np.arange(10))
        accuracy = net.score(TEST_X, TEST_Y)
        trial.report(epoch, accuracy=accuracy, log_weights=np.log10(weights))
    return {"accuracy": accuracy, "log_weights": float(np.log10(weights))}


def volume(study: lt.Study) -> float:
    losses = np.array([[-t.metrics["accuracy"], t.metrics["log_weights"]] for t in study.front])
    return lt.pareto.hypervolume(losses, np.array([0.0, 5.0]))


def main(trials: int) -> None:
    warnings.simplefilter("ignore")
    print(f"{'rule':10} {'epochs':>7} {'share':>6} {'volume':>7} {'share':>6} {'front':>5}")
    whole: tuple[int, float] | None = None
    for name, rule in RULES.items():
        study = lt.tune(
            objective,
            SPACE,
            objectives={"accuracy": "max", "log_weights": "min"},
            algorithm="random",
            trials=trials,
            stop=rule,
            progress=False,
        )
        epochs, reached = sum(len(t.reports) for t in study.trials), volume(study)
        whole = whole or (epochs, reached)
        shares = f"{epochs / whole[0]:6.2f} {reached:7.4f} {reached / whole[1]:6.3f}"
        print(f"{name:10} {epochs:7} {shares} {len(study.front):5}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
