"""What a study costs besides its trials: random search over trivial trials, SQLite on disk, one process.

python bench/studies/overhead.py [trials]        # needs optuna in the same environment for the comparison
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import luthier as lt


def with_luthier(folder: Path, trials: int) -> float:
    space = lt.Space(x=lt.Float(-5, 5), y=lt.Float(1e-4, 1, log=True), z=lt.Choice(["a", "b"]))
    began = time.perf_counter()
    lt.tune(
        lambda t: t["x"] ** 2 + t["y"],
        space,
        minimize="loss",
        algorithm="random",
        trials=trials,
        store=folder / "luthier.db",
        name="bench",
        progress=False,
    )
    return time.perf_counter() - began


def with_optuna(folder: Path, trials: int) -> float:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        x = trial.suggest_float("x", -5, 5)
        y = trial.suggest_float("y", 1e-4, 1, log=True)
        trial.suggest_categorical("z", ["a", "b"])
        return x**2 + y

    began = time.perf_counter()
    study = optuna.create_study(storage=f"sqlite:///{folder}/optuna.db", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=trials)
    return time.perf_counter() - began


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with_luthier(folder / "warm", 2)
        ours = with_luthier(folder, trials)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        study = lt.load_study(folder / "luthier.db", "bench")
        opened = time.perf_counter() - began
        assert [t.number for t in study.trials] == list(range(trials))
        print(f"luthier {trials} trials: {ours:.2f} s, {memory:.0f} MiB at most, reopened in {opened:.2f} s")
        try:
            theirs = with_optuna(folder, min(trials, 1000))
        except ModuleNotFoundError:
            print("optuna is not installed here: no comparison")
            return
        per = (ours / trials) / (theirs / min(trials, 1000))
        print(f"optuna  {min(trials, 1000)} trials: {theirs:.2f} s; luthier needs {per:.3f} of its time per trial")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
