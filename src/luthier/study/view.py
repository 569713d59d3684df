"""What a study found."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier import search
from luthier.errors import UsageError
from luthier.extras import need
from luthier.objectives import Objectives
from luthier.report import study_page
from luthier.search import Algorithm
from luthier.space import Space
from luthier.store import Header, View
from luthier.study.exchange import write
from luthier.study.importance import FEWEST, importance
from luthier.study.ledger import Ledger
from luthier.study.replay import Difference, Proposer, replay
from luthier.trial import Status, Trial


@dataclass
class Study:
    """A study's history and what follows from it. :func:`luthier.tune` and :func:`luthier.load_study` make it.

    Attributes:
        header: name, space, objectives and settings, as stored.
        space: where was searched.
        objectives: what was wanted.
        interrupted: whether Ctrl-C ended the last run before its budget did.
        views: what each proposal was made from, by trial number.
        folder: where trials keep their checkpoints, one folder per number.
    """

    header: Header
    space: Space
    objectives: Objectives
    ledger: Ledger
    folder: Path
    views: Mapping[int, View] = field(default_factory=dict, repr=False)
    interrupted: bool = False
    ender: Callable[[], None] | None = field(default=None, repr=False)
    scratch: object = field(default=None, repr=False)  # keeps a temporary folder alive

    def __getstate__(self) -> dict[str, Any]:
        """What a pickled copy keeps: everything but the ways to a live driver and to a temporary folder."""
        return {**self.__dict__, "ender": None, "scratch": None}

    def __repr__(self) -> str:
        return f"Study({self.name!r}, {len(self.ledger)} trials)"

    @property
    def name(self) -> str:
        """Its name within its store."""
        return self.header.name

    @property
    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return self.ledger.trials

    @property
    def best(self) -> Trial:
        """The best completed trial: feasible first, then the objective (of several, the first on the front).

        Raises:
            UsageError: nothing has completed.
        """
        front = self.front
        ranked = front or self.objectives.sorted(self.trials)
        if not ranked:
            causes = Counter(t.cause for t in self.trials if t.status is Status.FAILED and t.cause)
            raise UsageError(
                "there is no best trial",
                expected="at least one completed trial",
                got=_counts(self.trials),
                cause=causes.most_common(1)[0][0] if causes else None,
            )
        return ranked[0]

    @property
    def front(self) -> list[Trial]:
        """The feasible completed trials that none other dominates."""
        return self.objectives.front(self.trials)

    @property
    def ranking(self) -> list[Trial]:
        """The completed trials from best to worst."""
        return self.objectives.sorted(self.trials)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole study as one JSON Lines file; :func:`luthier.study.import_study` reads it.

        Returns:
            where it was written.
        """
        dumped = [(replace(t, params=self.space.dump(t.params)), self._view(t.number)) for t in self.trials]
        write(Path(path), self.header, dumped)
        return Path(path)

    def replay(self, algorithm: str | Algorithm | None = None, space: Space | None = None) -> list[Difference]:
        """Makes every proposal again, from what it was made from then.

        Args:
            algorithm: as it was set up for the study; None: the stored name with its default settings.
            space: the space with its predicates, which no store can hold; None: this study's.

        Returns:
            where replay and record differ; empty: all the same, bit for bit.

        Raises:
            UsageError: the space had predicates and none was given, or the algorithm is unknown.
        """
        where = self.space if space is None else space
        if len(where.where) != self.header.space["where"]:
            raise UsageError(
                "the space's predicates are not stored",
                expected=f"replay(space=...) with its {self.header.space['where']} predicates",
                got=f"a space with {len(where.where)}",
            )
        chosen = search.get(self.header.settings["algorithm"].lower() if algorithm is None else algorithm)
        seed = int(self.header.settings["seed"])
        ledger = Ledger(replace(t, params=where.load(self.space.dump(t.params))) for t in self.trials)
        return replay(Proposer(where, self.objectives, chosen, seed), ledger, self.views)

    def _view(self, number: int) -> View:
        return self.views.get(number, View())

    def stop(self) -> None:
        """From a callback: no more trials are started."""
        if self.ender is not None:
            self.ender()

    def to_frame(self) -> Any:
        """The trials as a pandas DataFrame: number, status, cause, seconds, then params and metrics by name.

        Raises:
            MissingExtra: pandas is not installed.
        """
        pandas = need("pandas", "plot", "Study.to_frame()")
        return pandas.DataFrame([self._row(t) for t in self.trials])

    def _row(self, trial: Trial) -> Mapping[str, Any]:
        head = {"number": trial.number, "status": trial.status.value, "cause": trial.cause, "seconds": trial.seconds}
        taken = {*head, *self.space.names}
        metrics = {(f"metric {n}" if n in taken else n): v for n, v in trial.metrics.items()}
        params = {(f"param {n}" if n in head else n): trial.params.get(n) for n in self.space.names}
        return {**head, **params, **metrics}

    def importance(self, metric: str | None = None) -> dict[str, float]:
        """Share of a metric's variance that each parameter explains; see :func:`luthier.study.importance.importance`.

        Args:
            metric: its name; None: the first objective.
        """
        return importance(self.space, self.objectives.complete(self.trials), metric or self.objectives.names[0])

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes one self-contained HTML page, and returns where."""
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(study_page(self.to_json()), encoding="utf-8")
        return place

    def to_json(self) -> dict[str, Any]:
        """Everything that a report shows, as plain values."""
        done = self.objectives.complete(self.trials)
        shares = {} if len(done) < FEWEST else self.importance()
        return {
            "name": self.name,
            "objectives": list(self.objectives.directions),
            "trials": [
                {**_plain(t, self.space), "feasible": self.objectives.violation(t.metrics) <= 0} for t in self.trials
            ],
            "best": self.best.number if done else None,
            "front": [t.number for t in self.front],
            "importance": shares,
        }


def _plain(trial: Trial, space: Space) -> dict[str, Any]:
    return {
        "number": trial.number,
        "status": trial.status.value,
        "params": space.dump(trial.params),
        "metrics": dict(trial.metrics),
        "cause": trial.cause,
        "seconds": trial.seconds,
    }


def _counts(trials: list[Trial]) -> str:
    kinds = Counter(t.status.value for t in trials)
    return ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no trial at all"
