"""Problems over plain dimensions, and searches over them: Luthier's algorithms, Optuna's samplers, Nevergrad, Ax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import luthier as lt

Params = Mapping[str, Any]
Step = Callable[[Params], float]


@dataclass(frozen=True)
class Problem:
    """A loss over plain dimensions: a tuple is a choice, (low, high, kind) a number of
    kind "float", "int", "log" or "log int".

    Attributes:
        loss: of the active parameters.
        space: dimensions by name.
        conditions: parameter -> (parent, the parent's values under which it is active).
        least: the least loss there is.
    """

    loss: Step
    space: Mapping[str, tuple[Any, ...]]
    least: float
    conditions: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)


def is_number(values: tuple[Any, ...]) -> bool:
    return values[-1] in ("float", "int", "log", "log int")


def luthier_run(problem: Problem, algorithm: str, trials: int, seed: int) -> list[float]:
    dimensions: dict[str, Any] = {}
    for name, values in problem.space.items():
        if not is_number(values):
            made: Any = lt.Choice(list(values))
        else:
            kind = lt.Int if values[2].endswith("int") else lt.Float
            made = kind(values[0], values[1], log=values[2].startswith("log"))
        parent = problem.conditions.get(name)
        dimensions[name] = made.when(**{parent[0]: parent[1]}) if parent else made
    loop, found = lt.AskTell(lt.Space(dimensions), algorithm=algorithm, minimize="loss", seed=seed), []
    for _ in range(trials):
        trial = loop.ask()
        found.append(problem.loss(trial.params))
        loop.tell(trial, found[-1])
    return found


def optuna_run(problem: Problem, sampler: str, trials: int, seed: int) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }[sampler]()

    def suggest(trial: Any, name: str, values: tuple[Any, ...]) -> Any:
        if not is_number(values):
            return trial.suggest_categorical(name, values)
        number = trial.suggest_int if values[2].endswith("int") else trial.suggest_float
        return number(name, values[0], values[1], log=values[2].startswith("log"))

    def objective(trial: Any) -> float:
        params: dict[str, Any] = {}
        for name, values in problem.space.items():
            parent = problem.conditions.get(name)
            if parent is None or params[parent[0]] in parent[1]:
                params[name] = suggest(trial, name, values)
        return problem.loss(params)

    study = optuna.create_study(sampler=made)
    study.optimize(objective, n_trials=trials)
    return [t.value for t in study.trials]


def nevergrad_run(problem: Problem, trials: int, seed: int) -> list[float]:
    import nevergrad as ng

    def dimension(values: tuple[Any, ...]) -> Any:
        if not is_number(values):
            return ng.p.Choice(list(values))
        kind = ng.p.Log if values[2].startswith("log") else ng.p.Scalar
        scalar = kind(lower=values[0], upper=values[1])
        return scalar.set_integer_casting() if values[2].endswith("int") else scalar

    space = ng.p.Dict(**{name: dimension(values) for name, values in problem.space.items()})
    space.random_state.seed(seed)
    search, found = ng.optimizers.NGOpt(parametrization=space, budget=trials), []
    for _ in range(trials):
        asked = search.ask()
        found.append(problem.loss(asked.value))
        search.tell(asked, found[-1])
    return found


def ax_run(problem: Problem, trials: int, seed: int) -> list[float]:
    """Ax by its fast method; parameters of a condition are always there for it."""
    import logging

    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    logging.disable(logging.CRITICAL)

    def dimension(name: str, values: tuple[Any, ...]) -> Any:
        if not is_number(values):
            return ChoiceParameterConfig(name=name, values=list(values), parameter_type="str", is_ordered=False)
        kind, scaling = (
            "int" if values[2].endswith("int") else "float",
            "log" if values[2].startswith("log") else "linear",
        )
        return RangeParameterConfig(name=name, parameter_type=kind, bounds=values[:2], scaling=scaling)

    client, found = Client(random_seed=seed), list[float]()
    client.configure_experiment(parameters=[dimension(*each) for each in problem.space.items()])
    client.configure_optimization(objective="-loss")
    client.configure_generation_strategy(method="fast", initialization_random_seed=seed)
    for _ in range(trials):
        ((number, params),) = client.get_next_trials(max_trials=1).items()
        found.append(problem.loss(params))
        client.complete_trial(number, raw_data={"loss": found[-1]})
    return found


def run(search: str, problem: Problem, trials: int, seed: int) -> list[float]:
    if search.startswith("optuna-"):
        return optuna_run(problem, search.removeprefix("optuna-"), trials, seed)
    if search == "nevergrad":
        return nevergrad_run(problem, trials, seed)
    if search == "ax":
        return ax_run(problem, trials, seed)
    return luthier_run(problem, search, trials, seed)


def unit(problem: Problem) -> float:
    """Distance of random search to the least loss after 10 trials, the median of 200 searches."""
    return float(np.median([min(luthier_run(problem, "random", 10, seed)) for seed in range(200)])) - problem.least
