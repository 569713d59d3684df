"""What a study found."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier import search
from luthier.errors import UsageError
from luthier.extras import need
from luthier.files import write_text
from luthier.objectives import Objectives
from luthier.report import study_page
from luthier.search import Algorithm
from luthier.search._standing import Standing, is_grid, standing
from luthier.search._warm import resumed
from luthier.space import Space
from luthier.store import Header, View
from luthier.study.exchange import write
from luthier.study.importance import FEWEST, Importance, importance
from luthier.study.ledger import Ledger
from luthier.study.replay import Difference, Proposer, replay
from luthier.study.replicate import originals
from luthier.trial import Copies, Estimate, Status, Trial


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
    scratch: object = field(default=None, repr=False)  # removes a temporary folder once the study is gone
    _known: tuple[tuple[int, int], Standing] | None = field(default=None, init=False, repr=False, compare=False)
    _given: Copies = field(default_factory=Copies, init=False, repr=False, compare=False)

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
        return self._given.of(self.ledger.trials)

    @property
    def best(self) -> Trial:
        """The best completed trial: feasible first, then the objective (of several, the first on the front).

        Where there are repeats (``tune(..., replicate=5)``) it is the one with the best mean of its repeats. Else,
        where there is one objective and a model sees noise in the results, it is the one that the model believes to
        be best, one standard deviation on the safe side. Else, and always for a grid, it is the one with the best
        measurement. Its ``metrics`` are what was measured when it was tried; its ``estimates`` hold mean and 95 %
        interval where repeats or the model know them.

        Raises:
            UsageError: nothing has completed.
        """
        best = self._standing().best
        return best.copy() if best is not None else self.best_measured

    @property
    def best_measured(self) -> Trial:
        """The completed trial with the best measurement, lucky or not: feasible first, then the objective.

        Raises:
            UsageError: nothing has completed.
        """
        copies = self._copies()
        first = [t for t in self.ledger.trials if t.number not in copies]
        ranked = self.objectives.front(first) or self.objectives.sorted(first)
        if not ranked:
            causes = Counter(t.cause for t in self.ledger.trials if t.status is Status.FAILED and t.cause)
            raise UsageError(
                "there is no best trial",
                expected="at least one completed trial",
                got=_counts(self.ledger.trials),
                cause=causes.most_common(1)[0][0] if causes else None,
            )
        return ranked[0].copy()

    @property
    def front(self) -> list[Trial]:
        """The feasible completed trials that none other dominates; where there are repeats, by their means."""
        return [t.copy() for t in self._standing().front]

    @property
    def ranking(self) -> list[Trial]:
        """The completed trials from best to worst, repeats left out; see :attr:`best`."""
        return [t.copy() for t in self._standing().ranking]

    @property
    def repeats(self) -> dict[int, list[Trial]]:
        """The repeats of each trial that was evaluated again, by its number."""
        out: dict[int, list[Trial]] = {}
        for number, original in self._copies().items():
            out.setdefault(original, []).append(self.ledger[number].copy())
        return out

    def _copies(self) -> dict[int, int]:
        return originals(self.views)

    def _standing(self) -> Standing:
        copies = self._copies()
        state = (self.ledger.version, len(copies))
        if self._known is None or self._known[0] != state:
            modelled = not is_grid(self.header.settings["algorithm"])
            self._known = state, standing(self.space, self.objectives, self.ledger.trials, copies, modelled)
        return self._known[1]

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole study as one JSON Lines file; :func:`luthier.study.import_study` reads it.

        Returns:
            where it was written.
        """
        dumped = [(replace(t, params=self.space.dump(t.params)), self._view(t.number)) for t in self.ledger.trials]
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
        where = self.space if space is None else resumed(space, self.header.space)
        if len(where.where) != self.header.space["where"]:
            raise UsageError(
                "the space's predicates are not stored",
                expected=f"replay(space=...) with its {self.header.space['where']} predicates",
                got=f"a space with {len(where.where)}",
            )
        chosen = search.get(self.header.settings["algorithm"].lower() if algorithm is None else algorithm)
        seed = int(self.header.settings["seed"])
        ledger = Ledger(replace(t, params=where.load(self.space.dump(t.params))) for t in self.ledger.trials)
        return replay(Proposer(where, self.objectives, chosen, seed), ledger, self.views)

    def _view(self, number: int) -> View:
        return self.views.get(number, View())

    def stop(self) -> None:
        """From a callback: no more trials are started."""
        if self.ender is not None:
            self.ender()

    def to_frame(self) -> Any:
        """The trials as a pandas DataFrame: number, status, cause, seconds, then params and metrics by name.

        Where trials were repeated, ``repeats`` is the number of the trial that a row repeats; where repeats or a model
        know more than the measurement, "loss mean", "loss low" and "loss high" are the estimate and its 95 % interval.

        Raises:
            MissingExtra: pandas is not installed.
        """
        pandas = need("pandas", "plot", "Study.to_frame()")
        copies, held = self._copies(), {t.number: t.estimates for t in self.ranking}
        return pandas.DataFrame(
            [{**self._row(t), **self._known_of(t.number, copies, held)} for t in self.ledger.trials]
        )

    def _known_of(
        self, number: int, copies: Mapping[int, int], held: Mapping[int, Mapping[str, Estimate]]
    ) -> dict[str, Any]:
        """What repeats and the model add to a row of the table; nothing where there are none."""
        again = {"repeats": copies.get(number)} if copies else {}
        names = dict.fromkeys(n for each in held.values() for n in each)
        found = held.get(number, {})
        ends = {
            f"{n} {end}": getattr(found[n], end) if n in found else math.nan
            for n in names
            for end in ("mean", "low", "high")
        }
        return {**again, **ends}

    def _row(self, trial: Trial) -> Mapping[str, Any]:
        head = {"number": trial.number, "status": trial.status.value, "cause": trial.cause, "seconds": trial.seconds}
        taken = {*head, *self.space.names}
        metrics = {(f"metric {n}" if n in taken else n): v for n, v in trial.metrics.items()}
        params = {(f"param {n}" if n in head else n): trial.params.get(n) for n in self.space.names}
        return {**head, **params, **metrics}

    def importance(self, metric: str | None = None) -> Importance:
        """Share of a metric's variance that each parameter explains; see :func:`luthier.study.importance.importance`.

        Args:
            metric: its name; None: the objective; of several objectives, the mean of their shares.

        Returns:
            parameter to share, the largest first; ``.main`` and ``.pairs`` tell its own effect from interactions.
        """
        return importance(self.space, self.objectives.complete(self.ledger.trials), metric or self.objectives.names)

    def report(self, path: str | os.PathLike[str], command: str | None = None) -> Path:
        """Writes one self-contained HTML page, and returns where.

        Args:
            path: of the page.
            command: how to run the study again, for its last section; None: a call of :func:`luthier.tune`.

        Raises:
            OutputError: it cannot be written; an older page is unharmed.
            MissingExtra: plotly is not installed.
        """
        return write_text(Path(path), study_page({**self.to_json(), "command": command or self._call()}))

    def _call(self) -> str:
        """The call of :func:`luthier.tune` that goes on with the study, as far as it is known."""
        wanted = {"objectives": dict(self.objectives.directions)}
        bounds = self.header.objectives["constraints"]
        kept = {n: self.header.settings.get(n) for n in ("seed", "stop")}
        facts = {**wanted, **({"constraints": dict(bounds)} if bounds else {}), **{n: v for n, v in kept.items() if v}}
        words = [f"{n}={v}" if n == "stop" else f"{n}={v!r}" for n, v in facts.items()]
        algorithm = str(self.header.settings["algorithm"]).lower()
        return f"lt.tune(objective, space, {', '.join(words)}, algorithm={algorithm!r}, store=..., name={self.name!r})"

    def to_json(self) -> dict[str, Any]:
        """Everything that a report shows, as plain values."""
        done = self.objectives.complete(self.ledger.trials)
        shares = Importance({}, {}) if len(done) < FEWEST else self.importance()
        best = self.best if done else None
        copies, lack = self._copies(), self.objectives.violation
        return {
            "name": self.name,
            "objectives": list(self.objectives.directions),
            "trials": [
                {**_plain(t, self.space), "feasible": lack(t.metrics) <= 0, "repeats": copies.get(t.number)}
                for t in self.ledger.trials
            ],
            "best": best.number if best else None,
            "estimates": {n: asdict(e) for n, e in best.estimates.items()} if best else {},
            "front": [t.number for t in self.front],
            "importance": dict(shares),
            "interactions": [[*pair, share] for pair, share in shares.pairs.items()][:3],
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
