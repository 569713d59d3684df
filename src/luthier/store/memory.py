"""A store in memory: it ends with the process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from luthier.store import Header, Lease, State, View, held, lost
from luthier.trial import Report, Status, Trial


@dataclass
class _Study:
    state: State
    trials: dict[int, Trial] = field(default_factory=dict)
    views: dict[int, View] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    token: str | None = None


class Memory:
    """Keeps studies in dictionaries; for quick searches, notebooks and tests."""

    def __init__(self) -> None:
        self._studies: dict[str, _Study] = {}

    def studies(self) -> list[State]:
        return [s.state for s in self._studies.values()]

    def state(self, name: str) -> State | None:
        study = self._studies.get(name)
        return study.state if study else None

    def trials(self, name: str) -> list[Trial]:
        return [t for _, t in sorted(self._studies[name].trials.items())]

    def create(self, header: Header) -> bool:
        if header.name in self._studies:
            return False
        self._studies[header.name] = _Study(State(header))
        return True

    def claim(self, name: str, token: str, patience: float) -> None:
        study = self._studies[name]
        if study.token not in (None, token):
            raise held(name, str(study.state.driver))
        mine = Lease(token)
        study.token = token
        study.state = replace(study.state, driver=f"process {mine.pid} on {mine.host}")

    def beat(self, name: str, token: str, spent: float) -> None:
        study = self._mine(name, token)
        study.state = replace(study.state, spent=spent)

    def release(self, name: str, token: str) -> None:
        study = self._studies.get(name)
        if study and study.token == token:
            study.token = None
            study.state = replace(study.state, driver=None)

    def views(self, name: str) -> dict[int, View]:
        return dict(self._studies[name].views)

    def start(self, name: str, token: str, trial: Trial, view: View) -> int:
        study = self._mine(name, token)
        study.views.setdefault(trial.number, view)
        before = study.trials.get(trial.number, trial)
        kept = tuple(r for r in before.reports if r.step <= trial.floor)
        study.trials[trial.number] = replace(trial, reports=kept)
        study.starts[trial.number] = study.starts.get(trial.number, 0) + 1
        return study.starts[trial.number]

    def report(self, name: str, token: str, number: int, report: Report) -> None:
        study = self._mine(name, token)
        known = study.trials[number]
        others = tuple(r for r in known.reports if r.step != report.step)
        study.trials[number] = replace(known, reports=tuple(sorted((*others, report), key=lambda r: r.step)))

    def finish(self, name: str, token: str, trial: Trial) -> None:
        study = self._mine(name, token)
        study.trials[trial.number] = trial
        if trial.status is Status.PAUSED:
            study.starts[trial.number] = 0

    def delete(self, name: str) -> None:
        self._studies.pop(name, None)

    def close(self) -> None:
        """Nothing to let go of."""

    def _mine(self, name: str, token: str) -> _Study:
        study = self._studies.get(name)
        if study is None or study.token != token:
            raise lost(name)
        return study
