"""Other studies' trials as records that a space can carry: parameters and ranks, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.space import Params, Space
from luthier.trial import Status, Trial

_MOST = 200  # trials that a record holds: the best half of them, and an even choice of the others


class Told(Protocol):
    """What a study, or an ask-and-tell loop, has to have to warm another one up."""

    @property
    def trials(self) -> list[Trial]:
        """Its trials."""
        ...

    @property
    def objectives(self) -> Objectives:
        """What it wanted; only the order counts, so it may have been another metric."""
        ...


def with_experience(space: Space, studies: Any) -> Space:
    """The space, knowing what other studies found.

    Args:
        space: of the new study.
        studies: a study or loop, or a list of them; None: the space stays as it is.

    Raises:
        UsageError: not a study, or one that shares no parameter has no finished trial, or none that is allowed here.
    """
    if studies is None or not isinstance(space, Space):
        return space
    listed = list(studies) if isinstance(studies, list | tuple) else [studies]
    return space.with_experience([_record(study, space) for study in listed])


def resumed(space: Space, stored: Mapping[str, Any]) -> Space:
    """The space with the experience that its study began with, whatever the other studies have become."""
    told = stored.get("experience", ())
    return space.with_experience(told) if told or space.experience else space


def _record(study: Any, space: Space) -> Mapping[str, Any]:
    if not hasattr(study, "trials") or not hasattr(study, "objectives"):
        raise UsageError(
            "warm_start is no study", expected="a study, such as load_study(store, name), or a list", got=repr(study)
        )
    name, ranked = str(getattr(study, "name", "loop")), _ranked(study)
    if not ranked:
        raise UsageError(f"the study {name!r} has nothing to learn from", expected="finished trials", got="none")
    if not any(n in space.parameters for trial in ranked for n in trial.params):
        names = dict.fromkeys(n for t in ranked for n in t.params)
        raise UsageError(
            f"the study {name!r} shares no parameter with this space",
            expected="at least one of " + ", ".join(space.names),
            got=", ".join(names),
        )
    last = max(len(ranked) - 1, 1)
    rows = []
    for place in _chosen(len(ranked)):
        params = translate(space, ranked[place].params)
        if space.allows(params):
            rows.append([space.dump(params), round(place / last, 6)])
    if not rows:
        raise UsageError(
            f"the study {name!r} has nothing to learn from: nothing of it is allowed here",
            expected="at least one trial that the space's 'where' allows",
            got=f"none of {len(ranked)}",
            fix="leave this study out of warm_start",
        )
    return {"study": name, "trials": rows}


def _ranked(study: Told) -> list[Trial]:
    """From best to worst: complete trials, then those that were stopped, then failures."""
    done = study.objectives.sorted(study.trials)
    stopped = [t for t in study.trials if t.status is Status.STOPPED]
    return [*done, *stopped, *(t for t in study.trials if t.status is Status.FAILED)]


def _chosen(count: int) -> Sequence[int]:
    if count <= _MOST:
        return range(count)
    half = _MOST // 2
    return [*range(half), *np.linspace(half, count - 1, half).astype(int).tolist()]


def translate(space: Space, params: Mapping[str, Any]) -> Params:
    """Another space's values as this one has them: numbers clipped, what is missing at its prior or its middle."""
    values: Params = {}
    for name in space.ordered:
        if space.is_active(name, values):
            values[name] = _nearest(space, name, params)
    return {n: values[n] for n in space.names if n in values}


def _nearest(space: Space, name: str, params: Mapping[str, Any]) -> Any:
    parameter = space[name]
    known = None
    if name in params and _loads(parameter, params[name]):
        known = parameter.load(params[name])
        if parameter.contains(known):
            return parameter.read(known)
    low, high = getattr(parameter, "low", None), getattr(parameter, "high", None)
    if isinstance(known, int | float) and not isinstance(known, bool) and low is not None and high is not None:
        near = min(max(known, low), high)
        return near if parameter.contains(near) else round(near)
    if parameter.prior is not None:
        return parameter.prior
    return parameter.from_unit(0.5 if parameter.columns == 1 else np.full(parameter.columns, 0.5))


def _loads(parameter: Any, value: Any) -> bool:
    """Whether a value can be read as this kind at all."""
    return parameter.columns == 1 or isinstance(value, list | tuple)
