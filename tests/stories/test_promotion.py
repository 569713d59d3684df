"""Trials that pause and are promoted: who goes on, where from, and what is left after every kind of end."""

from __future__ import annotations

import collections
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import luthier as lt
from luthier.store.memory import Memory
from luthier.trial import Leg, Status

SPACE = lt.Space(x=lt.Float(-1, 1))
TOP = 27
RULES = {
    "asha": lt.stop.ASHA(max_steps=TOP, promote=True),
    "hyperband": lt.stop.Hyperband(max_steps=TOP, promote=True),
}


def trained(trial, top: int = TOP) -> float:
    """Goes on from its checkpoint, and fails where what is there is not what its trial was told."""
    file = Path(trial.checkpoint) / "epoch.json"
    begin = 0
    if trial.resumed:
        state = json.loads(file.read_text())
        assert state["x"] == trial["x"]
        assert state["epoch"] >= trial.step
        begin = trial.step
    for epoch in range(begin + 1, top + 1):
        file.write_text(json.dumps({"x": trial["x"], "epoch": epoch}))
        trial.report(epoch, loss=trial["x"] ** 2 + 1 / epoch)
    return trial["x"] ** 2 + 1 / top


def tuned(objective=trained, **options) -> lt.Study:
    defaults = {"minimize": "loss", "algorithm": "random", "progress": False, "trials": 30, "stop": RULES["asha"]}
    return lt.tune(objective, SPACE, **{**defaults, **options})


def facts(study) -> list:
    return [(t.number, dict(t.params), t.status, dict(t.metrics), t.reports, t.cause, t.legs) for t in study.trials]


def whole(study) -> None:
    """What holds at the end of every such study."""
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    assert {t.status for t in study.trials} <= {Status.COMPLETE, Status.STOPPED, Status.FAILED}
    for t in study.trials:
        assert [r.step for r in t.reports] == list(range(1, len(t.reports) + 1))  # no step missing or doubled
    turns = [leg.turn for t in study.trials for leg in t.legs]
    assert len(turns) == len(set(turns))


def test_the_schedule_is_the_papers():
    """Algorithm 2 of the paper, written down again with its own bookkeeping, for one worker."""
    rungs = [1, 3, 9]
    losses = {t.number: t.params["x"] ** 2 for t in tuned().trials}
    at: list[dict[int, float]] = [{} for _ in rungs]
    promoted: list[set[int]] = [set() for _ in rungs]
    whole_runs, new = [], 0

    def get_job() -> tuple[int, int] | None:
        nonlocal new
        for k in reversed(range(len(rungs))):
            best = sorted(at[k], key=lambda n: at[k][n])[: len(at[k]) // 3]
            for number in best:
                if number not in promoted[k]:
                    promoted[k].add(number)
                    return number, k + 1
        new += 1
        return (new - 1, 0) if new <= 30 else None

    while job := get_job():
        number, k = job
        if k == len(rungs):
            whole_runs.append(number)
        else:
            at[k][number] = losses[number]
    study = tuned()
    whole(study)
    reached = {t.number: len(t.reports) for t in study.trials}
    expected = {
        n: TOP if n in whole_runs else max(r for r, seen in zip(rungs, at, strict=True) if n in seen) for n in losses
    }
    assert reached == expected
    assert study.best.number in whole_runs


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("workers", [1, 3])
def test_paused_trials_go_on_from_their_checkpoints_and_none_is_left_paused(tmp_path, rule, workers):
    study = tuned(workers=workers, stop=RULES[rule], store=tmp_path / "s.db", name="n")
    whole(study)
    kinds = collections.Counter(t.status for t in study.trials)
    assert kinds[Status.COMPLETE] >= 1
    assert kinds[Status.FAILED] == 0
    waited = [t for t in study.trials if t.status is Status.STOPPED]
    assert all(t.cause == f"paused at step {t.floor} and not promoted before the study ended" for t in waited)
    assert all(t.metrics == t.reports[-1].metrics for t in waited)
    stored = lt.load_study(tmp_path / "s.db")
    assert facts(stored) == facts(study)
    assert stored.replay() == []
    assert study.replay() == []


@pytest.mark.parametrize("algorithm", ["bayes", "tpe", "nsga2"])
def test_every_proposal_can_be_made_again_whatever_was_promoted_since(tmp_path, algorithm):
    for name, options in {"in order": {"deterministic": 4}, "as it came": {}}.items():
        study = tuned(workers=2, trials=16, algorithm=algorithm, store=tmp_path / "s.db", name=name, **options)
        assert options == {} or any(len(t.legs) > 1 for t in study.trials)  # else chance decides who goes on at once
        assert lt.load_study(tmp_path / "s.db", name=name).replay() == []


@pytest.mark.parametrize("rule", RULES)
def test_any_number_of_workers_gives_the_same_promotions(rule):
    def objective(trial):
        time.sleep(0.002 * (trial.number * 7 % 5))  # let them end out of order
        return trained(trial)

    made = [tuned(objective, workers=w, deterministic=4, stop=RULES[rule], algorithm="tpe") for w in (1, 2, 4)]
    assert facts(made[0]) == facts(made[1]) == facts(made[2])
    assert any(t.status is Status.COMPLETE and len(t.legs) > 1 for t in made[0].trials)
    assert made[0].replay(algorithm="tpe") == []


def test_more_trials_later_may_promote_those_that_waited(tmp_path):
    store = tmp_path / "s.db"
    first = tuned(store=store, name="n", trials=9)
    second = tuned(store=store, name="n", trials=30)
    whole(second)
    left = [t.number for t in first.trials if t.status is Status.STOPPED]
    grown = [n for n in left if len(second.trials[n].reports) > len(first.trials[n].reports)]
    assert grown
    for n in left:
        assert second.trials[n].legs[: len(first.trials[n].legs)] == first.trials[n].legs
        assert second.trials[n].reports[: len(first.trials[n].reports)] == first.trials[n].reports
    again = tuned(store=store, name="n", trials=30)
    assert facts(again) == facts(second)  # nothing is left to do


def test_a_checkpoint_that_is_gone_is_not_resumed_from():
    store = Memory()  # its checkpoints end with each call
    tuned(store=store, name="n", trials=9)
    second = tuned(store=store, name="n", trials=30)
    whole(second)
    assert {t.status for t in second.trials} == {Status.COMPLETE, Status.STOPPED}
    assert any(len(t.legs) > 1 for t in second.trials[:9])


def test_a_study_too_small_for_its_rungs_still_ends_with_a_best_trial():
    for trials in (1, 2, 5, 25):
        for deterministic in (False, 3):
            study = tuned(trials=trials, deterministic=deterministic)
            assert len([t for t in study.trials if t.status is Status.COMPLETE]) == 1
            assert study.best.metrics["loss"] == min(t.params["x"] ** 2 for t in study.trials) + 1 / TOP


@pytest.mark.parametrize("workers", [1, 3])
def test_reported_steps_are_counted_once(tmp_path, workers):
    for steps in (20, 50, 50):
        study = tuned(workers=workers, trials=None, steps=steps, store=tmp_path / "s.db", name="n")
        assert sum(len(t.reports) for t in study.trials) == steps
    whole(study)


def test_several_objectives_and_constraints_are_promoted_by_rank():
    def objective(trial):
        for epoch in range(trial.step + 1 if trial.resumed else 1, 10):
            trial.report(epoch, accuracy=trial["x"] * epoch)
            trial.report(epoch, cost=trial["x"], size=abs(trial["x"]))  # a second call for the step adds to it
        return {"accuracy": trial["x"] * 9, "cost": trial["x"], "size": abs(trial["x"])}

    wanted = {"minimize": None, "objectives": {"accuracy": "max", "cost": "min"}, "constraints": {"size": "<= 0.5"}}
    study = tuned(
        objective, stop=lt.stop.ASHA(max_steps=9, promote=True), trials=40, workers=2, deterministic=2, **wanted
    )
    done = [t for t in study.trials if t.status is Status.COMPLETE]
    assert len(done) >= 2
    assert all(t.metrics["size"] <= 0.5 for t in done)
    assert all(set(r.metrics) == {"accuracy", "cost", "size"} for t in done for r in t.reports)


def test_a_trial_that_forgets_its_checkpoint_begins_again_and_counts_once():
    def forgetful(trial):
        for epoch in range(1, TOP + 1):
            trial.report(epoch, loss=trial["x"] ** 2 + 1 / epoch)
        return trial["x"] ** 2

    study = tuned(forgetful, workers=2, deterministic=4)
    whole(study)
    assert any(t.status is Status.COMPLETE and len(t.legs) > 1 for t in study.trials)


def test_a_pause_that_is_swallowed_is_a_pause_and_one_that_breaks_is_a_failure():
    def objective(trial):
        try:
            return trained(trial)
        except lt.TrialStopped:
            if trial.number == 2:
                raise ValueError("while it was saving") from None
            return 0.0

    study = tuned(objective)
    whole(study)
    assert study.trials[2].status is Status.FAILED
    assert "while it was saving" in study.trials[2].cause
    assert all(t.metrics["loss"] > 0 for t in study.trials if t.status is Status.STOPPED)


def test_a_diverged_trial_is_stopped_and_not_paused():
    study = tuned(lambda t: t.report(1, loss=float("nan")), trials=3)
    assert [t.cause for t in study.trials] == ["loss is NaN at step 1"] * 3


SCRIPT = """
import json, sys, time
from pathlib import Path
import luthier as lt

def objective(trial):
    file = Path(trial.checkpoint) / "epoch"
    for epoch in range(trial.step + 1 if trial.resumed else 1, 28):
        file.write_text(str(epoch))
        time.sleep(0.004)
        trial.report(epoch, loss=trial["x"] ** 2 + 1 / epoch)
    return trial["x"] ** 2

study = lt.tune(objective, lt.Space(x=lt.Float(-1, 1)), minimize="loss", algorithm="random", trials=25, workers=2,
                executor="processes", store=sys.argv[1], name="n", progress=False, deterministic=eval(sys.argv[2]),
                stop=lt.stop.ASHA(max_steps=27, promote=True))
print(study.interrupted)
"""


def begin(tmp_path: Path, deterministic: str) -> subprocess.Popen:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "s.db"), deterministic]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def statuses(path: Path) -> list[str]:
    """Of the trials that have ended or paused in a live study."""
    if not path.exists():
        return []
    connection = sqlite3.connect(path, timeout=30)
    try:
        return [s for (s,) in connection.execute("SELECT status FROM luthier_trials") if s != "running"]
    except sqlite3.OperationalError:
        return []  # the tables are not there yet
    finally:
        connection.close()


def wait_for(condition, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", ["False", "4"])
def test_kills_at_any_moment_lose_no_pause(tmp_path, deterministic):
    told: dict[int, tuple] = {}
    for kill in range(5):
        before = len(statuses(tmp_path / "s.db"))
        process = begin(tmp_path, deterministic)
        wait_for(lambda n=before: len(statuses(tmp_path / "s.db")) > n)
        time.sleep(0.03 * kill)
        process.kill()
        process.wait()
        study = lt.load_study(tmp_path / "s.db")
        now = {t.number: t for t in study.trials}
        for number, (legs, reports) in told.items():
            assert now[number].legs[: len(legs)] == legs
            assert now[number].reports[: len(reports)] == reports
        told = {n: (_done(t), tuple(r for r in t.reports if r.step <= t.floor)) for n, t in now.items()}
    assert begin(tmp_path, deterministic).communicate()[0] == "False\n"
    study = lt.load_study(tmp_path / "s.db")
    whole(study)
    assert len(study.trials) == 25
    assert {t.status for t in study.trials} == {Status.COMPLETE, Status.STOPPED}
    assert study.replay() == []
    if deterministic != "False":
        other = tmp_path / "other"
        other.mkdir()
        begin(other, deterministic).communicate()
        assert facts(study) == facts(lt.load_study(other / "s.db"))


def _done(trial) -> tuple[Leg, ...]:
    return tuple(leg for leg in trial.legs if leg.step is not None)


@pytest.mark.slow
def test_ctrl_c_leaves_pauses_that_the_next_run_takes_up(tmp_path):
    process = begin(tmp_path, "False")
    wait_for(lambda: len(statuses(tmp_path / "s.db")) > 3)
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate()[0] == "True\n"
    paused = [t for t in lt.load_study(tmp_path / "s.db").trials if t.status is Status.PAUSED]
    assert paused
    assert all(t.cause.startswith("ASHA: waits at step") for t in paused)
    assert begin(tmp_path, "False").communicate()[0] == "False\n"
    whole(lt.load_study(tmp_path / "s.db"))


def test_a_study_with_pauses_survives_a_file_and_another_rule(tmp_path):
    store = Memory()

    def watch(study, trial):
        study.stop()

    study = tuned(store=store, name="n", callbacks=[watch])
    path = study.export(tmp_path / "f.jsonl")
    assert facts(lt.study.import_study(path, tmp_path / "t.db")) == facts(study)
    again = tuned(store=tmp_path / "t.db", name="n", stop=None, trials=len(study.trials) + 2)
    assert [t.status for t in again.trials[-2:]] == [Status.COMPLETE] * 2
    assert again.replay() == []
