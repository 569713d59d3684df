"""Other libraries behind one face, for the side-by-side benchmarks; each is imported where it is used.

A space is a dict of name -> ("float", low, high), ("log", low, high), ("int", low, high) or ("choice", values).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Spec = Mapping[str, tuple[Any, ...]]


class Loop(Protocol):
    """A search: asked for parameters, told the losses, all minimised."""

    def ask(self) -> dict[str, Any]: ...

    def tell(self, losses: Sequence[float]) -> None: ...

    def best(self) -> dict[str, Any]: ...


def luthier_space(spec: Spec) -> Any:
    """The space as Luthier writes it."""
    import luthier as lt

    kinds = {"float": lt.Float, "int": lt.Int, "choice": lambda *v: lt.Choice(list(v[0]))}
    made = {
        n: lt.Float(low[0], low[1], log=True) if kind == "log" else kinds[kind](*low)
        for n, (kind, *low) in spec.items()
    }
    return lt.Space(made)


class Luthier:
    """This library; ``best`` is ``AskTell.best``."""

    def __init__(self, spec: Spec, objectives: int, seed: int, algorithm: str) -> None:
        import luthier as lt

        self.names = [f"f{i}" for i in range(objectives)]
        wanted = dict.fromkeys(self.names, "min")
        self.loop = lt.AskTell(luthier_space(spec), algorithm=algorithm, objectives=wanted, seed=seed)

    def ask(self) -> dict[str, Any]:
        self.trial = self.loop.ask()
        return dict(self.trial.params)

    def tell(self, losses: Sequence[float]) -> None:
        self.loop.tell(self.trial, dict(zip(self.names, losses, strict=True)))

    def best(self) -> dict[str, Any]:
        return dict(self.loop.best.params)


class Optuna:
    """Optuna; ``best`` is ``study.best_params``, its trial of least measured value."""

    def __init__(self, spec: Spec, objectives: int, seed: int, sampler: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore")
        made = {
            "gp": optuna.samplers.GPSampler,
            "tpe": optuna.samplers.TPESampler,
            "nsga2": optuna.samplers.NSGAIISampler,
            "random": optuna.samplers.RandomSampler,
        }[sampler](seed=seed)
        self.spec = spec
        self.study = optuna.create_study(directions=["minimize"] * objectives, sampler=made)

    def ask(self) -> dict[str, Any]:
        self.trial = self.study.ask()
        return {n: self._suggest(n, *each) for n, each in self.spec.items()}

    def _suggest(self, name: str, kind: str, *given: Any) -> Any:
        if kind == "choice":
            return self.trial.suggest_categorical(name, given[0])
        if kind == "int":
            return self.trial.suggest_int(name, *given)
        return self.trial.suggest_float(name, *given, log=kind == "log")

    def tell(self, losses: Sequence[float]) -> None:
        self.study.tell(self.trial, list(losses))

    def best(self) -> dict[str, Any]:
        return dict(self.study.best_params)


class Skopt:
    """scikit-optimize; ``best`` is the ``x`` of its result, the least measured value."""

    def __init__(self, spec: Spec, objectives: int, seed: int, base: str) -> None:
        import skopt

        warnings.filterwarnings("ignore")
        kinds = {"float": skopt.space.Real, "int": skopt.space.Integer, "choice": skopt.space.Categorical}
        dimensions = [
            skopt.space.Real(*given, prior="log-uniform") if kind == "log" else kinds[kind](*given)
            for kind, *given in spec.values()
        ]
        self.names = list(spec)
        self.optimizer = skopt.Optimizer(dimensions, base_estimator=base.upper(), random_state=seed)

    def ask(self) -> dict[str, Any]:
        self.point = self.optimizer.ask()
        return dict(zip(self.names, self.point, strict=True))

    def tell(self, losses: Sequence[float]) -> None:
        self.result = self.optimizer.tell(self.point, losses[0])

    def best(self) -> dict[str, Any]:
        return dict(zip(self.names, self.result.x, strict=True))


class Pymoo:
    """pymoo's NSGA-II with operators for mixed variables, a population of 20 by default."""

    def __init__(self, spec: Spec, objectives: int, seed: int, population: str) -> None:
        from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowdingSurvival
        from pymoo.core.mixed import MixedVariableDuplicateElimination, MixedVariableMating, MixedVariableSampling
        from pymoo.core.problem import Problem
        from pymoo.core.variable import Choice, Integer, Real

        kinds = {
            "float": lambda low, high: Real(bounds=(low, high)),
            "int": lambda low, high: Integer(bounds=(low, high)),
            "choice": lambda options: Choice(options=list(options)),
        }
        self.problem = Problem(vars={n: kinds[kind](*given) for n, (kind, *given) in spec.items()}, n_obj=objectives)
        alone = MixedVariableDuplicateElimination()
        self.algorithm = NSGA2(
            pop_size=int(population or 20),
            sampling=MixedVariableSampling(),
            mating=MixedVariableMating(eliminate_duplicates=alone),
            eliminate_duplicates=alone,
            survival=RankAndCrowdingSurvival(),
        )
        self.algorithm.setup(self.problem, termination=("n_gen", 10_000), seed=seed, verbose=False)
        self.waiting: list[Any] = []
        self.values: list[Sequence[float]] = []

    def ask(self) -> dict[str, Any]:
        if len(self.values) == len(self.waiting):
            self._next_generation()
        return dict(self.waiting[len(self.values)].X)

    def _next_generation(self) -> None:
        import numpy as np
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        if self.waiting:
            known = StaticProblem(self.problem, F=np.array(self.values))
            Evaluator().eval(known, self.generation)
            self.algorithm.tell(infills=self.generation)
        self.generation = self.algorithm.ask()
        self.waiting, self.values = list(self.generation), []

    def tell(self, losses: Sequence[float]) -> None:
        self.values.append(losses)

    def best(self) -> dict[str, Any]:
        raise ValueError("several objectives have a front, not a best")


_FAMILIES = {"luthier": Luthier, "optuna": Optuna, "skopt": Skopt, "pymoo": Pymoo}


def start(peer: str, spec: Spec, objectives: int, seed: int) -> Loop:
    """A search by a name such as ``luthier_bayes``, ``optuna_gp``, ``skopt_gp`` or ``pymoo_nsga2``."""
    family, _, kind = peer.partition("_")
    return _FAMILIES[family](spec, objectives, seed, "" if family == "pymoo" else kind)


def add(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a result to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Every result of some files; of the same run the newest."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            found[json.dumps([row[k] for k in ("peer", "problem", "setting", "seed")])] = row
    return list(found.values())
