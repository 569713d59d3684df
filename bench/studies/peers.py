"""The peers' side of stopping.py, run in an environment of theirs: JSON in, JSON out.

python peers.py syne SEED < trials.json      # [{"log_weights": ..., "curve": [...]}, ...] -> epochs of each trial
python peers.py optuna SEED TRIALS           # -> [[accuracy, log_weights], ...], nothing stopped
"""

from __future__ import annotations

import json
import sys

import task


def syne(seed: int) -> list[int]:
    """Syne Tune's MOASHA, its scheduler driven trial by trial, as with one worker."""
    import datetime

    import numpy as np
    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import uniform
    from syne_tune.optimizer.scheduler import SchedulerDecision
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    np.random.seed(seed)  # noqa: NPY002 - Syne Tune draws from the global stream
    rule = MOASHA(
        {"x": uniform(0, 1)},
        metrics=["error", "log_weights"],
        time_attr="epoch",
        max_t=task.EPOCHS,
        grace_period=1,
        reduction_factor=3,
        random_seed=seed,
    )
    out = []
    for number, known in enumerate(json.load(sys.stdin)):
        trial = Trial(number, {}, datetime.datetime.now())
        rule.on_trial_add(trial)
        for epoch, accuracy in enumerate(known["curve"], start=1):
            row = {"epoch": epoch, "error": 1 - accuracy, "log_weights": known["log_weights"]}
            if rule.on_trial_result(trial, row) == SchedulerDecision.STOP:
                break
        out.append(epoch)
    return out


def optuna(seed: int, trials: int) -> list[list[float]]:
    """Optuna with its default sampler; ``trial.report`` raises NotImplementedError with two objectives."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        params = {
            "width": trial.suggest_int("width", 4, 256, log=True),
            "depth": trial.suggest_int("depth", 1, 2),
            "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
            "alpha": trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
            "batch": trial.suggest_categorical("batch", task.BATCHES),
        }
        try:
            trial.report(0.0, 1)
        except NotImplementedError:
            return task.curve(params)[-1], task.log_weights(params)
        raise AssertionError("this Optuna stops with several objectives: compare with that")

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=None)
    study.sampler = type(study.sampler)(seed=seed)
    study.optimize(objective, n_trials=trials)
    print(f"optuna {optuna.__version__}, {type(study.sampler).__name__}", file=sys.stderr)
    return [list(t.values) for t in study.trials]


if __name__ == "__main__":
    made = syne(int(sys.argv[2])) if sys.argv[1] == "syne" else optuna(int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(made))
