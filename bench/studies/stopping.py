"""Early stopping with two objectives on a real task: how much of the front is kept for how many epochs.

    python bench/studies/stopping.py [trials] [seeds] [--syne PYTHON] [--optuna PYTHON]

The task is in task.py. For each seed the same random proposals run once to the end and once under each rule, and
under Syne Tune's MOASHA where a Python with syne-tune is named. Optuna refuses to stop with several objectives, so that
it stands where the first row stands; named, it runs its own default sampler to the full length.

Volume: the hypervolume of the completed trials up to (accuracy 0, 10^5 parameters).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import task

import luthier as lt

SPACE = lt.Space(
    width=lt.Int(4, 256, log=True),
    depth=lt.Int(1, 2),
    lr=lt.Float(1e-4, 1e-1, log=True),
    alpha=lt.Float(1e-6, 1e-1, log=True),
    batch=lt.Ordinal(task.BATCHES),
)
TOP = task.EPOCHS
RULES = {
    "none": None,
    "asha": lt.stop.ASHA(min_steps=1, max_steps=TOP),
    "asha, promote": lt.stop.ASHA(min_steps=1, max_steps=TOP, promote=True),
    "hyperband": lt.stop.Hyperband(min_steps=1, max_steps=TOP),
    "hyperband, promote": lt.stop.Hyperband(min_steps=1, max_steps=TOP, promote=True),
    "median": lt.stop.Median(),
}
CURVES: dict[str, list[float]] = {}


def curve(params: dict) -> list[float]:
    """Trained once, whichever rule looks at it."""
    name = json.dumps(params, sort_keys=True)
    if name not in CURVES:
        CURVES[name] = task.curve(params)
    return CURVES[name]


def objective(trial):
    weights = task.log_weights(trial.params)
    trial.checkpoint  # noqa: B018 - what a real training would write and load
    for epoch in range(max(trial.step, 0) + 1, TOP + 1):
        trial.report(epoch, accuracy=curve(trial.params)[epoch - 1], log_weights=weights)
    return {"accuracy": curve(trial.params)[-1], "log_weights": weights}


def volume(points: list[tuple[float, float]]) -> float:
    losses = np.array([[-accuracy, weights] for accuracy, weights in points]).reshape(-1, 2)
    return lt.pareto.hypervolume(losses, np.array([0.0, 5.0]))


def under(rule, trials: int, seed: int) -> tuple[int, float, list]:
    """Epochs, volume, and the trials."""
    study = lt.tune(
        objective,
        SPACE,
        objectives={"accuracy": "max", "log_weights": "min"},
        algorithm="random",
        trials=trials,
        stop=rule,
        seed=seed,
        progress=False,
    )
    done = [(t.metrics["accuracy"], t.metrics["log_weights"]) for t in study.front]
    return sum(len(t.reports) for t in study.trials), volume(done), study.trials


def peer(python: str, *arguments: object, data: object = None) -> list:
    command = [python, str(Path(__file__).with_name("peers.py")), *map(str, arguments)]
    done = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def rows(trials: int, seed: int, syne: str | None, optuna: str | None) -> dict[str, tuple[int, float]]:
    out, all_trials = {}, []
    for name, rule in RULES.items():
        epochs, reached, made = under(rule, trials, seed)
        out[name] = (epochs, reached)
        all_trials = all_trials or [
            {"log_weights": t.metrics["log_weights"], "curve": [r.metrics["accuracy"] for r in t.reports]} for t in made
        ]
    if syne:
        epochs = peer(syne, "syne", seed, data=all_trials)
        done = [(t["curve"][-1], t["log_weights"]) for t, n in zip(all_trials, epochs, strict=True) if n == TOP]
        out["Syne Tune MOASHA"] = (sum(epochs), volume(done))
    if optuna:
        out["Optuna, not stopped"] = (trials * TOP, volume(peer(optuna, "optuna", seed, trials)))
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", type=int, nargs="?", default=60)
    parser.add_argument("seeds", type=int, nargs="?", default=1)
    parser.add_argument("--syne")
    parser.add_argument("--optuna")
    given = parser.parse_args()
    each = []
    for seed in range(given.seeds):
        each.append(rows(given.trials, seed, given.syne, given.optuna))
        print(f"seed {seed}: {each[-1]}", flush=True)
    print("| rule | epochs | share | volume | share | lowest share |\n|---|---|---|---|---|---|")
    for name in each[0]:
        epochs, reached = (np.mean([r[name][k] for r in each]) for k in (0, 1))
        shares = [r[name][1] / r["none"][1] for r in each]
        share = epochs / (given.trials * TOP)
        print(f"| {name} | {epochs:.0f} | {share:.2f} | {reached:.4f} | {np.mean(shares):.3f} | {min(shares):.3f} |")


if __name__ == "__main__":
    main()
