"""What a study wants: directions, constraints, and how finished and unfinished trials compare."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from luthier import pareto
from luthier.errors import ObjectiveError, UsageError, nearest
from luthier.pareto import Array
from luthier.trial import Status, Trial

_BOUND = re.compile(r"\s*(<=|>=|<|>)\s*(\S+)\s*$")


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric, such as ``size_mb <= 1.0``."""

    metric: str
    operator: str
    bound: float

    @classmethod
    def parse(cls, metric: str, text: str) -> Constraint:
        """Reads ``"<= 1.0"``.

        Raises:
            UsageError: no operator, or no finite number behind it.
        """
        match = _BOUND.match(text) if isinstance(text, str) else None
        try:
            bound = float(match.group(2)) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise UsageError(
                f"the constraint on {metric!r} cannot be read",
                expected='an operator and a number, such as "<= 1.0"',
                got=repr(text),
            )
        return cls(metric, match.group(1), bound)

    def violation(self, value: float) -> float:
        """How much is lacking: 0 where the bound holds, else the distance to it (NaN lacks infinitely)."""
        lack = value - self.bound if self.operator.startswith("<") else self.bound - value
        if math.isnan(lack):
            return math.inf
        strict_miss = lack == 0 and not self.operator.endswith("=")
        return math.ulp(1.0) if strict_miss else max(lack, 0.0)

    def __str__(self) -> str:
        return f"{self.metric} {self.operator} {self.bound:g}"


@dataclass(frozen=True)
class Objectives:
    """Named directions and constraints.

    Attributes:
        directions: ("accuracy", "max"), ("latency_ms", "min"), ...
        constraints: bounds on metrics, objectives or others.

    Example:
        >>> wanted = Objectives.of(objectives={"accuracy": "max", "ms": "min"}, constraints={"mb": "<= 1"})
        >>> wanted.losses({"accuracy": 0.9, "ms": 2.0}).tolist()
        [-0.9, 2.0]
        >>> wanted.violation({"accuracy": 0.9, "ms": 2.0, "mb": 3.0})
        2.0
    """

    directions: tuple[tuple[str, str], ...]
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(
        cls,
        maximize: str | None = None,
        minimize: str | None = None,
        objectives: Mapping[str, str] | None = None,
        constraints: Mapping[str, str] | None = None,
    ) -> Objectives:
        """Reads the arguments of :func:`luthier.tune`.

        Raises:
            UsageError: none or several of the three ways used, no name or no mapping where one is wanted, a direction
                that is neither "min" nor "max", or a constraint that cannot be read.
        """
        given = [w for w, v in (("maximize", maximize), ("minimize", minimize), ("objectives", objectives)) if v]
        if len(given) != 1:
            raise UsageError(
                "a study needs its objective named in exactly one way",
                expected='maximize="accuracy", or minimize="loss", or objectives={"accuracy": "max", ...}',
                got=" and ".join(given) or "none of them",
            )
        wanted = objectives or {_named(maximize or minimize): "max" if maximize else "min"}
        _is_mapping("objectives", wanted, '{"accuracy": "max", "latency_ms": "min"}')
        for name, direction in wanted.items():
            if direction not in ("min", "max"):
                raise UsageError(
                    f"the direction of objective {_named(name)!r} is unknown",
                    expected='"min" or "max"',
                    got=repr(direction),
                )
        _is_mapping("constraints", constraints or {}, '{"size_mb": "<= 1.0"}')
        bounds = tuple(Constraint.parse(m, text) for m, text in (constraints or {}).items())
        return cls(tuple((_named(n), d) for n, d in wanted.items()), bounds)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics to optimise, in order."""
        return tuple(name for name, _ in self.directions)

    @property
    def required(self) -> tuple[str, ...]:
        """The metrics that a result must hold: objectives, then those only constrained."""
        return tuple(dict.fromkeys([*self.names, *(c.metric for c in self.constraints)]))

    @property
    def signs(self) -> Array:
        """+1 where a metric is minimised, -1 where it is maximised; shape (m,)."""
        return np.array([1.0 if d == "min" else -1.0 for _, d in self.directions])

    def losses(self, metrics: Mapping[str, float]) -> Array:
        """The objectives as losses to minimise, shape (m,); NaN for a metric that is not there."""
        return np.array([metrics.get(n, math.nan) for n in self.names], dtype=float) * self.signs

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Sum of what the constraints lack; 0 when all hold. A metric not (yet) there lacks nothing."""
        return sum(c.violation(metrics[c.metric]) for c in self.constraints if c.metric in metrics)

    def read(self, result: Any) -> dict[str, float]:
        """Turns what an objective returned into metrics.

        Raises:
            ObjectiveError: not a finite number nor a dict of them, or a metric is missing.
        """
        metrics = self._as_mapping(result)
        out = {str(name): _number(name, value) for name, value in metrics.items()}
        missing = [name for name in self.required if name not in out]
        if missing:
            raise ObjectiveError(
                f"the objective did not return the metric {missing[0]!r}",
                expected="a dict with " + ", ".join(map(repr, self.required)),
                got="a dict with " + (", ".join(map(repr, out)) or "nothing"),
                fix=nearest(missing[0], out),
            )
        for name in self.required:
            _finite(name, out[name])
        return out

    def _as_mapping(self, result: Any) -> Mapping[str, Any]:
        if isinstance(result, Mapping):
            return result
        if len(self.required) == 1 and hasattr(result, "__float__"):  # a tensor of one number, too
            return {self.names[0]: result}
        raise ObjectiveError(
            "the objective returned something that is not a result",
            expected="a number" if len(self.required) == 1 else "a dict with " + ", ".join(map(repr, self.required)),
            got=f"{type(result).__name__} {_short(result)}",
            cause="a missing 'return'" if result is None else None,
        )

    def complete(self, trials: Iterable[Trial]) -> list[Trial]:
        """The trials that ran to their end with every objective."""
        return [t for t in trials if t.status is Status.COMPLETE and not np.isnan(self.losses(t.metrics)).any()]

    def sorted(self, trials: Iterable[Trial]) -> list[Trial]:
        """Completed trials from best to worst: feasible first, then non-dominated rank, then crowding."""
        done = self.complete(trials)
        if not done:
            return []
        losses = np.array([self.losses(t.metrics) for t in done])
        lack = np.array([self.violation(t.metrics) for t in done])
        return [done[i] for i in pareto.order(losses, lack)]

    def front(self, trials: Iterable[Trial]) -> list[Trial]:
        """The feasible completed trials that none other dominates, by the first objective from its best value."""
        done = [t for t in self.complete(trials) if self.violation(t.metrics) <= 0]
        if not done:
            return []
        losses = np.array([self.losses(t.metrics) for t in done])
        kept = np.flatnonzero(pareto.front(losses))
        return [done[i] for i in sorted(kept, key=lambda i: tuple(losses[i]))]

    def position(self, trial: Trial, others: Sequence[Trial], step: int) -> tuple[int, int]:
        """Place of a trial's curve at ``step`` among others' that got as far: (place from 0, how many in all).

        Constraints first, then non-dominated rank, then crowding; several objectives are welcome.
        """
        place = self.standing([trial, *(t for t in others if t.number != trial.number)], step)
        mine = next((i for i, t in enumerate(place) if t is trial), None)
        return (0 if mine is None else mine), len(place)

    def standing(self, trials: Iterable[Trial], step: int) -> list[Trial]:
        """The trials whose curves got as far as ``step`` with every objective known, from best to worst there.

        Constraints first, then non-dominated rank, then crowding; of equals, the one that comes first.
        """
        reached = [(t, t.at(step)) for t in trials if t.reports and t.reports[-1].step >= step]
        known = [(t, m) for t, m in reached if not np.isnan(self.losses(m)).any()]
        if not known:
            return []
        losses = np.array([self.losses(m) for _, m in known])
        lack = np.array([self.violation(m) for _, m in known])
        return [known[i][0] for i in pareto.order(losses, lack)]


def _named(metric: Any) -> str:
    if not isinstance(metric, str):
        raise UsageError("a metric to optimise is no name", expected='a text, such as "accuracy"', got=repr(metric))
    return metric


def _is_mapping(name: str, value: Any, example: str) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name!r} is no mapping", expected=f"{name}={example}", got=repr(value))


def _number(name: Any, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise ObjectiveError(
            f"the metric {name!r} is not a number",
            expected="a finite number",
            got=f"{type(value).__name__} {_short(value)}",
        ) from None


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ObjectiveError(
            f"the metric {name!r} is {value}",
            expected="a finite number",
            got=value,
            cause="training diverged, or an empty average",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
