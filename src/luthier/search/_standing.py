"""How completed trials stand: by their repeats, else by a model where it sees noise, else as measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.space import Space
from luthier.trial import Estimate, Trial

_LEVEL = 0.95
_DEVIATION = 0.255  # of the width of an interval of that level, where it is normal


@dataclass(frozen=True)
class Standing:
    """The completed trials in order.

    Attributes:
        ranking: from best to worst, repeats left out; those of which more than the measurement is known hold estimates.
        front: the feasible ones that none other dominates, by the first objective from its best value.
    """

    ranking: list[Trial]
    front: list[Trial]

    @property
    def best(self) -> Trial | None:
        """The first of the front; where nothing is feasible, the first of the ranking."""
        if len(self.front) > 0:
            return self.front[0]
        return self.ranking[0] if self.ranking else None


def standing(
    space: Space,
    objectives: Objectives,
    trials: Iterable[Trial],
    copies: Mapping[int, int] | None = None,
    modelled: bool = True,
) -> Standing:
    """Orders completed trials.

    Trials that were evaluated again at least twice come first, by the mean of the repeats (their first result does not
    count: it is why they were chosen). The others come in the order of a model's posterior mean, made worse by one
    standard deviation (of two alike the better known one), where there is one objective and the model sees noise, else
    as measured.

    Args:
        space: where was searched.
        objectives: what is wanted.
        trials: any.
        copies: number of a repeat to the number of the trial that it repeats.
        modelled: whether a model may be asked.
    """
    again = copies or {}
    listed = list(trials)
    first = objectives.complete(t for t in listed if t.number not in again)
    results = _results(objectives, listed, again)
    confirmed = [_confirmed(t, results[t.number]) for t in first if len(results[t.number]) > 1]
    good = _by_means(objectives, [t for t in confirmed if _lack(objectives, t) <= 0])
    known = {t.number for t in good}
    rest = _ordered(space, objectives, [t for t in first if t.number not in known], modelled)
    ranking = [*good, *(_with_estimates(t, confirmed) for t in rest)]
    if good:
        return Standing(ranking, _front(objectives, good))
    if len(objectives.names) == 1 and rest and objectives.violation(rest[0].metrics) <= 0:
        return Standing(ranking, ranking[:1] if rest[0].estimates else objectives.front(first))
    return Standing(ranking, objectives.front(first))


def is_grid(algorithm: object) -> bool:
    """Whether an algorithm, or its name, is the grid, whose best is the best of its table, as measured."""
    return (algorithm if isinstance(algorithm, str) else type(algorithm).__name__).lower() == "grid"


def _results(
    objectives: Objectives, trials: Sequence[Trial], copies: Mapping[int, int]
) -> defaultdict[int, list[Mapping[str, float]]]:
    out: defaultdict[int, list[Mapping[str, float]]] = defaultdict(list)
    for trial in objectives.complete(t for t in trials if t.number in copies):
        out[copies[trial.number]].append(trial.metrics)
    return out


def _confirmed(trial: Trial, results: Sequence[Mapping[str, float]]) -> Trial:
    names = [n for n in results[0] if all(n in r for r in results)]
    return replace(trial, estimates={n: student(np.array([r[n] for r in results])) for n in names})


def student(values: Array) -> Estimate:
    """Mean and Student's t interval of at least two results: mean +- t(0.975, k - 1) s / sqrt(k).

    Example:
        >>> found = student(np.array([1.0, 2.0, 3.0]))
        >>> found.mean, round(found.high, 3)
        (2.0, 4.484)
    """
    from scipy import special

    count = len(values)
    mean = float(values.mean())
    half = float(special.stdtrit(count - 1, 0.5 + _LEVEL / 2)) * float(values.std(ddof=1)) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count, "repeats")


def _means(trial: Trial) -> dict[str, float]:
    return {name: each.mean for name, each in trial.estimates.items()}


def _lack(objectives: Objectives, trial: Trial) -> float:
    return objectives.violation(_means(trial))


def _by_means(objectives: Objectives, trials: Sequence[Trial]) -> list[Trial]:
    stand_ins = [replace(t, metrics=_means(t)) for t in trials]
    known = {t.number: t for t in trials}
    return [known[t.number] for t in objectives.sorted(stand_ins)]


def _front(objectives: Objectives, trials: Sequence[Trial]) -> list[Trial]:
    stand_ins = [replace(t, metrics=_means(t)) for t in trials]
    known = {t.number: t for t in trials}
    return [known[t.number] for t in objectives.front(stand_ins)]


def _with_estimates(trial: Trial, confirmed: Sequence[Trial]) -> Trial:
    return next((t for t in confirmed if t.number == trial.number), trial)


def _ordered(space: Space, objectives: Objectives, trials: Sequence[Trial], modelled: bool) -> list[Trial]:
    """From best to worst: feasible ones first, then by the model where it sees noise, else as measured."""
    measured = objectives.sorted(trials)
    believed = _believed(space, objectives, trials) if modelled and len(objectives.names) == 1 else {}
    if not believed:
        return measured
    name, sign = objectives.names[0], float(objectives.signs[0])
    held = [replace(t, estimates={name: believed[t.number]}) if t.number in believed else t for t in measured]
    place = {t.number: i for i, t in enumerate(measured)}

    def key(trial: Trial) -> tuple[float, bool, float, int]:
        lack, known = objectives.violation(trial.metrics), trial.number in believed
        return lack, not known, _cautious(trial.estimates[name], sign) if known else 0.0, place[trial.number]

    return sorted(held, key=key)


def _cautious(estimate: Estimate, sign: float) -> float:
    """The estimate's mean as a loss, one standard deviation worse."""
    return sign * estimate.mean + _DEVIATION * (estimate.high - estimate.low)


def _believed(space: Space, objectives: Objectives, trials: Sequence[Trial]) -> dict[int, Estimate]:
    """What the model believes of each trial, by number; nothing where it sees no noise, or fails."""
    if len(trials) < 2:
        return {}
    from scipy.special import ndtri

    from luthier.search._encode import Encoding
    from luthier.search.bayes.posterior import FEWEST, posterior

    fitting = [t for t in trials if all(n in space.parameters for n in t.params)]
    if len(fitting) < FEWEST:
        return {}
    name, sign = objectives.names[0], float(objectives.signs[0])
    try:
        encoding = Encoding(space)
        rows = np.array([encoding.rows(t.params) for t in fitting])
        found = posterior(encoding, rows, np.array([sign * t.metrics[name] for t in fitting]))
    except (ArithmeticError, ValueError, np.linalg.LinAlgError):
        return {}
    if found is None or not np.isfinite(found.mean).all():
        return {}
    half = float(ndtri(0.5 + _LEVEL / 2)) * found.deviation
    return {
        fitting[i].number: Estimate(sign * m, sign * m - h, sign * m + h, len(found.kept), "model")
        for i, m, h in zip(found.kept.tolist(), found.mean.tolist(), half.tolist(), strict=True)
    }
