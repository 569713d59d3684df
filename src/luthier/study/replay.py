"""Replay: makes every proposal of a study again and compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import Algorithm
from luthier.search._cheaper import ladder
from luthier.search._threads import OneThread
from luthier.space import Space
from luthier.store import View
from luthier.study.governor import at
from luthier.study.ledger import Ledger, legs


@dataclass(frozen=True)
class Difference:
    """A trial whose proposal came out otherwise.

    Attributes:
        number: the trial.
        stored: the values that it ran with.
        replayed: those proposed now; None: the algorithm had nothing more to propose.
    """

    number: int
    stored: Mapping[str, Any]
    replayed: Mapping[str, Any] | None

    def __str__(self) -> str:
        return f"trial {self.number}: ran with {dict(self.stored)}, replay gives {self.replayed}"


@dataclass(frozen=True)
class Proposer:
    """What proposals are made with.

    Attributes:
        space: where was searched, predicates included.
        objectives: what was wanted.
        algorithm: as it was set up for the study.
        seed: of the study.
    """

    space: Space
    objectives: Objectives
    algorithm: Algorithm
    seed: int


def replay(proposer: Proposer, ledger: Ledger, views: Mapping[int, View]) -> list[Difference]:
    """Every proposal of the algorithm, made again from what it saw then.

    Args:
        proposer: as in the study.
        ledger: the trials as they ended.
        views: what each proposal was made from.

    Returns:
        where the two differ; empty: the history is what this algorithm and seed give.
    """
    out = []
    one_thread = OneThread()
    steps = ladder(proposer.algorithm)
    for trial in ledger.trials:
        view = views.get(trial.number, View("user"))
        if view.by != "algorithm":
            continue
        history, pending = ledger.seen(legs(trial)[0].turn, view.pending)
        key = Key(proposer.seed, trial.number)
        with one_thread():
            found = at(steps, view.level).ask(proposer.space, proposer.objectives, history, pending, 1, key)
        again = found[0] if found else None
        if again is None or proposer.space.dump(again) != proposer.space.dump(trial.params):
            out.append(Difference(trial.number, trial.params, again))
    return out
