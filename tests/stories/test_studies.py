"""Studies from end to end: resumed, killed, interrupted, shared, repeated."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import luthier as lt
from luthier.errors import StoreError, UsageError
from luthier.store.memory import Memory
from luthier.trial import Status

SPACE = lt.Space(x=lt.Float(-1, 1), kind=lt.Choice(["a", None, 3]))


def square(trial) -> float:
    return trial["x"] ** 2


def curved(trial) -> float:
    for step in range(1, 10):
        trial.report(step, loss=trial["x"] ** 2 + 1 / step)
    return trial["x"] ** 2


def tuned(objective=square, space=SPACE, **options):
    return lt.tune(objective, space, **{"minimize": "loss", "algorithm": "random", "progress": False, **options})


def facts(study) -> list:
    return [(t.number, dict(t.params), t.status, dict(t.metrics), t.reports, t.cause) for t in study.trials]


# totals and resume


def test_trials_is_the_total_over_all_runs(tmp_path):
    store = tmp_path / "s.db"
    calls = []

    def objective(trial):
        calls.append(trial.number)
        return trial["x"] ** 2

    tuned(objective, trials=5, store=store, name="n")
    tuned(objective, trials=5, store=store, name="n")
    study = tuned(objective, trials=8, store=store, name="n")
    assert calls == list(range(8))
    assert facts(study) == facts(tuned(trials=8))  # interruptions leave no trace in what is proposed
    assert facts(lt.load_study(store, "n")) == facts(study)
    assert lt.load_study(store).best == study.best


def test_one_store_holds_many_studies_with_and_without_names(tmp_path):
    store = tmp_path / "s.db"
    names = [tuned(trials=2, store=store, name=name).name for name in ("one", None, None)]
    assert len(set(names)) == 3
    with pytest.raises(UsageError, match="one"):
        lt.load_study(store)
    with pytest.raises(UsageError, match="did you mean 'one'"):
        lt.load_study(store, "onne")


def test_values_that_json_lacks_come_back_on_resume(tmp_path):
    class Level(IntEnum):
        LOW = 1

    class Name(StrEnum):
        SHORT = "s"

    space = lt.Space(kind=lt.Choice([int, float, (1, 2), math.nan, math.inf, Level.LOW, Name.SHORT]))
    seen = []

    def objective(trial):
        seen.append(trial["kind"])
        return 1.0

    for trials in (3, 9):
        study = tuned(objective, space, trials=trials, store=tmp_path / "s.db", name="n")
    assert [t.params["kind"] for t in study.trials] == seen
    assert len(seen) == 7
    assert all(isinstance(t.params["kind"], str | float) for t in lt.load_study(tmp_path / "s.db").trials)


@pytest.mark.parametrize(
    ("space", "options", "sign"),
    [
        (lt.Space(x=lt.Float(-2, 1), kind=lt.Choice(["a", None, 3])), {}, "parameter 'x' was"),
        (lt.Space(x=lt.Float(-1, 1)), {}, "parameter 'kind' is gone"),
        (SPACE, {"minimize": None, "maximize": "loss"}, "objective 'loss' was min and is max now"),
        (SPACE, {"constraints": {"mb": "<= 1"}}, "constraint 'mb' is new"),
    ],
)
def test_another_study_of_the_same_name_is_refused(tmp_path, space, options, sign):
    tuned(trials=2, store=tmp_path / "s.db", name="n")
    with pytest.raises(UsageError, match=sign):
        tuned(space=space, trials=4, store=tmp_path / "s.db", name="n", **options)
    assert len(lt.load_study(tmp_path / "s.db", "n").trials) == 2


def test_an_objective_may_change_what_it_is_given(tmp_path):
    space = lt.Space(x=lt.Float(0, 1), net=lt.Choice([{"kind": "a", "sizes": [1]}, {"kind": "b"}]))

    def lived(spoil):
        def objective(trial):
            value = trial["x"] + len(trial["net"])
            if spoil:
                trial["net"].pop("kind")
                trial["net"].setdefault("sizes", []).append(2)
                trial.params.pop("x")
            return value

        def spoils(study, trial):
            if spoil:
                study.best.params.clear()
                trial.params.clear()

        store = tmp_path / f"{spoil}.db"
        for trials in (9, 15):
            study = tuned(objective, space, trials=trials, store=store, name="n", callbacks=[spoils], algorithm="bayes")
        for record in (study.best, *study.front, *study.ranking, *study.trials) if spoil else ():
            record.params.clear()
        return [repr(t.params) for t in lt.load_study(store).trials], study.best.params["x"], study.importance()

    assert lived(spoil=True) == lived(spoil=False)


def test_an_option_that_changes_stays_the_option_that_it_was(tmp_path):
    class Model:
        def __init__(self, depth):
            self.depth = depth

        def __repr__(self):
            return f"Model({self.depth})"

    def objective(trial):
        trial["model"].depth += 10
        return trial["x"]

    space = lt.Space(x=lt.Float(0, 1), model=lt.Choice([Model(1), Model(2)]))
    for algorithm in ("bayes", "tpe", "cmaes"):
        study = tuned(objective, space, trials=12, store=tmp_path / "s.db", name=algorithm, algorithm=algorithm)
        assert [t.status for t in study.trials] == [Status.COMPLETE] * 12
        names = {t.params["model"] for t in lt.load_study(tmp_path / "s.db", algorithm).trials}
        assert names == {"Model(1)", "Model(2)"}
        space = lt.Space(x=lt.Float(0, 1), model=lt.Choice([Model(1), Model(2)]))


def test_a_tensor_or_any_other_number_is_a_result():
    results = [torch.tensor(2.0), Decimal("1.5"), Fraction(1, 4), np.float32(0.5), True]
    study = tuned(lambda trial: results[trial.number], trials=5)
    assert [t.metrics["loss"] for t in study.trials] == [2.0, 1.5, 0.25, 0.5, 1.0]


def test_a_time_out_is_the_total_and_ends_running_trials_at_their_next_report(tmp_path):
    def objective(trial):
        for step in range(10_000):
            time.sleep(0.01)
            trial.report(step, loss=1.0)
        return 1.0

    for _ in range(2):
        study = tuned(objective, timeout=0.3, store=tmp_path / "s.db", name="n")
    assert [t.status for t in study.trials] == [Status.STOPPED]
    assert "time" in study.trials[0].cause


def test_steps_are_a_total_that_ends_running_trials_too(tmp_path):
    for steps in (5, 20, 20):
        study = tuned(curved, steps=steps, store=tmp_path / "s.db", name="n")
        assert sum(len(t.reports) for t in study.trials) == steps
    assert [t.status.value[0] for t in study.trials] == ["s", "c", "s"]
    assert "steps" in study.trials[0].cause


def test_a_target_ends_the_study():
    study = tuned(target=0.05, trials=1000)
    assert study.best.metrics["loss"] <= 0.05
    assert len(study.trials) < 1000
    assert all(t.metrics["loss"] > 0.05 for t in study.trials[:-1])


def test_a_target_that_was_reached_stays_reached(tmp_path):
    how = {"target": 0.05, "trials": 1000, "store": tmp_path / "s.db", "name": "a"}
    count = len(tuned(**how).trials)
    assert [len(tuned(**how).trials) for _ in range(2)] == [count, count]
    assert len(tuned(**{**how, "target": 1e-9, "trials": count + 2}).trials) == count + 2


def test_a_target_of_several_objectives_needs_names():
    both = {"minimize": None, "objectives": {"a": "min", "b": "max"}}
    study = tuned(lambda t: {"a": t["x"], "b": t["x"]}, target={"a": 0.5, "b": 0.4}, trials=1000, **both)
    assert 0.4 <= study.trials[-1].metrics["a"] <= 0.5
    with pytest.raises(UsageError, match="ambiguous"):
        tuned(target=1.0, **both)


def test_a_grid_ends_by_itself_and_skips_what_was_done(tmp_path):
    space = lt.Space(a=lt.Choice([1, 2, 3]), b=lt.Choice([4, 5]))
    one = {"space": space, "objective": lambda t: t["a"] * t["b"], "algorithm": "grid", "store": tmp_path / "s.db"}
    tuned(**one, trials=2, name="n")
    study = tuned(**one, name="n")
    assert sorted(t.metrics["loss"] for t in study.trials) == [4, 5, 8, 10, 12, 15]


def test_first_configurations_come_first_and_once(tmp_path):
    first = [{"x": 0.5, "kind": "a"}, {"x": -0.5, "kind": None}]
    for trials in (1, 4):
        study = tuned(trials=trials, first=first, store=tmp_path / "s.db", name="n")
    assert [t.params for t in study.trials[:2]] == first
    assert study.trials[2].params not in first
    with pytest.raises(UsageError, match="out of range"):
        tuned(first=[{"x": 5, "kind": "a"}], trials=1)


def test_a_grid_of_ones_own_is_run_whole():
    space = lt.Space(a=lt.Float(0, 1), b=lt.Float(0, 1), c=lt.Float(0, 1))
    study = tuned(lambda t: t["a"], space, algorithm=lt.search.Grid(levels=4))
    assert len({repr(t.params) for t in study.trials}) == len(study.trials) == 64


def test_arrays_may_be_options_of_the_first_configurations(tmp_path):
    space = lt.Space(k=lt.Choice([np.array([1, 2]), np.array([3, 4])]), x=lt.Float(0, 1))
    first = [{"k": np.array([3, 4]), "x": 1}, {"k": np.array([1, 2]), "x": 0.5}]
    for trials in (1, 4):
        options = {"trials": trials, "first": first, "store": tmp_path / "s.db", "name": "n", "algorithm": "tpe"}
        study = tuned(lambda t: float(t["k"].sum()) * t["x"], space, **options)
    assert [t.metrics["loss"] for t in study.trials[:2]] == [7.0, 1.5]
    assert [t.params["k"].tolist() for t in study.trials[:2]] == [[3, 4], [1, 2]]


def test_callbacks_see_each_trial_and_may_end_the_study():
    seen = []

    def watch(study, trial):
        seen.append((trial.number, len(study.trials)))
        if trial.number == 3:
            study.stop()

    assert len(tuned(trials=50, callbacks=[watch]).trials) == 4
    assert seen == [(i, i + 1) for i in range(4)]
    assert len(tuned(trials=50, callbacks=watch, first={"x": 0.5, "kind": "a"}).trials) == 4


def test_a_study_without_a_single_result_says_why():
    def objective(trial):
        raise RuntimeError("no licence")

    study = tuned(objective, trials=3)
    assert study.front == []
    with pytest.raises(UsageError, match=r"(?s)3 failed.*RuntimeError: no licence"):
        _ = study.best


def test_a_frame_holds_every_trial():
    def objective(trial):
        if trial.number == 1:
            raise ValueError("no")
        return {"loss": 1.0, "x": 5.0}

    frame = tuned(objective, trials=3).to_frame()
    assert list(frame["status"]) == ["complete", "failed", "complete"]
    assert list(frame["metric x"].dropna()) == [5.0, 5.0]
    assert frame["x"].between(-1, 1).all()


# determinism


@pytest.mark.parametrize("stop", [None, lt.stop.ASHA(max_steps=9)], ids=["full", "stopped"])
def test_any_number_of_workers_gives_the_same_trials(stop, tmp_path):
    def objective(trial):
        time.sleep(0.002 * (trial.number * 7 % 5))  # let them end out of order
        return curved(trial)

    made = [tuned(objective, trials=40, workers=w, deterministic=True, stop=stop) for w in (1, 2, 8)]
    assert facts(made[0]) == facts(made[1]) == facts(made[2])
    for trials in (7, 23, 40):  # and so does an interrupted run
        options = {"store": tmp_path / "s.db", "name": "n", "deterministic": True, "stop": stop}
        study = tuned(objective, trials=trials, workers=2, **options)
    assert facts(study) == facts(made[0])


def test_deterministic_proposals_see_no_more_than_the_lag_allows():
    class Spy:
        def ask(self, space, objectives, history, pending, n, key):
            seen.append(([t.number for t in history], [(t.number, t.status) for t in pending]))
            return [space.draw(key.generator("spy"))]

    seen: list = []
    tuned(trials=9, algorithm=Spy(), deterministic=3)
    for k, (history, pending) in enumerate(seen):
        assert history == list(range(max(k - 2, 0)))
        assert pending == [(i, Status.RUNNING) for i in range(max(k - 2, 0), k)]


def test_a_deterministic_study_goes_on_only_as_it_began(tmp_path):
    options = {"store": tmp_path / "s.db", "name": "n"}
    tuned(trials=2, deterministic=True, **options)
    for other in ({"seed": 1}, {"deterministic": 4}, {"algorithm": "sobol"}, {}):
        with pytest.raises(UsageError, match="setting"):
            tuned(**{"trials": 4, "deterministic": bool(other), **other, **options})


# death


SCRIPT = """
import sys, time
import luthier as lt

def objective(trial):
    for step in range(1, 4):
        time.sleep(pause)
        trial.report(step, loss=trial["x"] ** 2)
    return trial["x"] ** 2

store, workers, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
print("up", flush=True)
lt.tune(objective, lt.Space(x=lt.Float(-1, 1)), minimize="loss", algorithm="random", trials=60, workers=workers,
        executor="processes", store=store, name="n", progress=False)
print("done", flush=True)
"""


def begin(tmp_path: Path, workers: int, pause: float = 0.01) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "s.db"), str(workers), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def rows(path: Path, what: str = "number, status, params, metrics, cause, started, ended") -> list:
    if not path.exists():
        return []
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute(f"SELECT {what} FROM luthier_trials ORDER BY number").fetchall()
    except sqlite3.OperationalError:
        return []  # the tables are not there yet
    finally:
        connection.close()


def wait_for(condition, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_killing_the_driver_again_and_again_loses_nothing(tmp_path):
    store = tmp_path / "s.db"
    known: dict[int, tuple] = {}
    for kill in range(6):
        process = begin(tmp_path, workers=2)
        before = len(rows(store))
        wait_for(lambda n=before, k=kill: len(rows(store)) >= min(n + 3 + k, 60))
        process.kill()
        process.wait()
        now = {row[0]: row for row in rows(store)}
        for number, row in known.items():
            assert now[number] == row  # what was finished is there, unchanged
        known = {n: row for n, row in now.items() if row[1] != "running"}
        assert len(lt.load_study(store, "n").ledger.unfinished) == 0
    assert begin(tmp_path, workers=2).communicate()[0] == "up\ndone\n"
    study = lt.load_study(store, "n")
    assert [t.number for t in study.trials] == list(range(60))
    assert {t.status for t in study.trials} == {Status.COMPLETE}
    assert all([r.step for r in t.reports] == [1, 2, 3] for t in study.trials)
    assert {n: row for n, row in ((r[0], r) for r in rows(store)) if n in known} == known


def test_a_killed_worker_costs_one_trial_and_dies_with_its_children(tmp_path):
    process = begin(tmp_path, workers=2)
    wait_for(lambda: len(rows(tmp_path / "s.db")) > 5)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    assert process.communicate()[0] == "up\ndone\n"
    study = lt.load_study(tmp_path / "s.db", "n")
    failed = [t.cause for t in study.trials if t.status is Status.FAILED]
    assert len(study.trials) == 60
    assert len(failed) <= 1  # none, if it was idle
    assert all("SIGKILL" in cause for cause in failed)


@pytest.mark.parametrize("busy", ["time.sleep(600)", "re.match('(a+)+b', 'a' * 60)"], ids=["asleep", "holding the GIL"])
def test_busy_workers_die_with_a_killed_driver(tmp_path, busy):
    script = tmp_path / "script.py"
    script.write_text(
        "import re, sys, time, luthier as lt\n"
        f"lt.tune(lambda t: {busy}, lt.Space(x=lt.Float(0, 1)), minimize='loss', algorithm='random', trials=9,"
        " workers=2, store=sys.argv[1], name='n', progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, script, tmp_path / "s.db"])
    wait_for(lambda: len(rows(tmp_path / "s.db")) == 2)
    time.sleep(0.5)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len([pid for pid in workers if alive(pid)]) == 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers))


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path):
    process = begin(tmp_path, workers=1, pause=1.0)
    try:
        wait_for(lambda: len(rows(tmp_path / "s.db")) > 0)
        with pytest.raises(StoreError, match=f"process {process.pid} on"):
            tuned(space=lt.Space(x=lt.Float(-1, 1)), trials=60, store=tmp_path / "s.db", name="n")
        assert any(t.status is Status.RUNNING for t in lt.load_study(tmp_path / "s.db", "n").trials)
    finally:
        process.kill()
        process.wait()
    study = tuned(space=lt.Space(x=lt.Float(-1, 1)), trials=60, store=tmp_path / "s.db", name="n")
    assert len(study.trials) == 60


def test_a_trial_that_kills_its_driver_is_given_up_in_the_end(tmp_path):
    script = tmp_path / "poison.py"
    script.write_text(
        "import os, sys, luthier as lt\n"
        "f = lambda t: os._exit(9) if t.number == 1 else 1.0\n"
        "lt.tune(f, lt.Space(x=lt.Float(0, 1)), minimize='loss', algorithm='random', trials=3,"
        " store=sys.argv[1], name='n', progress=False)\n"
    )
    codes = [subprocess.run([sys.executable, script, tmp_path / "s.db"]).returncode for _ in range(6)]
    assert codes == [9] * 5 + [0]
    statuses = [t.status for t in lt.load_study(tmp_path / "s.db").trials]
    assert statuses == [Status.COMPLETE, Status.FAILED, Status.COMPLETE]


def test_a_store_that_cannot_be_written_ends_the_study_clearly_and_keeps_what_was_done(tmp_path):
    class Full(Memory):
        def finish(self, name, token, trial):
            if trial.number == 3:
                raise StoreError("the disk is full")
            super().finish(name, token, trial)

    store = Full()
    with pytest.raises(StoreError, match="disk is full"):
        tuned(store=store, name="n", trials=9)
    assert [t.status for t in store.trials("n")] == [Status.COMPLETE] * 3 + [Status.RUNNING]
    store.__class__ = Memory
    assert len(tuned(store=store, name="n", trials=9).trials) == 9


def test_a_store_that_fails_inside_a_report_is_not_blamed_on_the_objective():
    class Broken(Memory):
        def report(self, name, token, number, report):
            raise StoreError("gone")

    def objective(trial):
        try:
            trial.report(1, loss=1.0)
        except BaseException:
            return 0.0

    with pytest.raises(StoreError, match="gone"):
        tuned(objective, store=Broken(), name="n", trials=3)


def test_a_live_study_is_listed_and_reported_without_disturbing_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = begin(tmp_path, workers=2, pause=1.0)
    try:
        wait_for(lambda: len(rows(tmp_path / "s.db")) > 1)
        for command in (["studies", "s.db"], ["studies", "s.db", "n"], ["report", "s.db", "n"]):
            shell = [sys.executable, "-m", "luthier.cli", *command]
            done = subprocess.run(shell, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
            assert done.returncode == 0, done.stderr
            if command == ["studies", "s.db"]:
                assert f"process {process.pid} on" in done.stdout
                assert "2 running" in done.stdout
        assert "2 running." in (tmp_path / "n.html").read_text()
        assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate()[0] == "up\ndone\n"
    finally:
        process.kill()
    assert {t.status for t in lt.load_study(tmp_path / "s.db").trials} == {Status.COMPLETE}


# Ctrl-C

PRESSED = """
import os, signal, sys, time
import luthier as lt

def objective(trial):
    for step in range(10):
        time.sleep(0.02)
        if trial.number == 2 and step in {steps} and {inline}:
            os.kill(os.getpid(), signal.SIGINT)
    return 1.0

study = lt.tune(objective, lt.Space(x=lt.Float(0, 1)), minimize="loss", algorithm="random", trials=6,
                workers={workers}, store=sys.argv[1], name="n", progress=False)
print(study.interrupted, len(study.trials))
"""


@pytest.mark.parametrize(("steps", "code", "left"), [([3], 0, []), ([3, 5], -2, ["running"])])
def test_ctrl_c_once_finishes_what_runs_and_twice_stops_now(tmp_path, steps, code, left):
    script = tmp_path / "script.py"
    script.write_text(PRESSED.format(steps=steps, inline=True, workers=1))
    done = subprocess.run([sys.executable, script, tmp_path / "s.db"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    states = [row[1] for row in rows(tmp_path / "s.db")]
    assert states == (["complete"] * 2 + left if left else ["complete"] * 3)
    if not left:
        assert done.stdout == "True 3\n"
    script.write_text(PRESSED.format(steps=[], inline=True, workers=1))
    done = subprocess.run([sys.executable, script, tmp_path / "s.db"], capture_output=True, text=True)
    assert done.stdout == "False 6\n"


def test_ctrl_c_reaches_the_driver_only_and_workers_finish(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRESSED.format(steps=[], inline=False, workers=2))
    process = subprocess.Popen(
        [sys.executable, script, tmp_path / "s.db"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(rows(tmp_path / "s.db")) >= 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out = process.communicate()[0].split()
    assert out[0] == "True"
    assert 2 <= int(out[1]) < 6
    assert {row[1] for row in rows(tmp_path / "s.db")} == {"complete"}


# the rest of the contract


def test_importance_finds_what_matters_and_admits_noise():
    space = lt.Space(a=lt.Float(0, 1), b=lt.Float(0, 1), c=lt.Choice(["x", "y"]), d=lt.Float(0, 1).when(c="x"))
    wanted = tuned(lambda t: (t["a"] - 0.3) ** 2 + 0.01 * t["b"], space, trials=150).importance()
    assert next(iter(wanted)) == "a"
    assert wanted["a"] > 0.8
    assert sum(wanted.values()) <= 1
    noise = tuned(lambda t: (t.seed % 1000) / 1000, space, trials=150).importance()
    assert sum(noise.values()) < 0.2
    with pytest.warns(UserWarning, match="hardly a guess"):
        tuned(trials=3).importance()


def test_bad_arguments_are_told_before_anything_runs(tmp_path):
    bad = [
        ({"trials": 0}, "trials"),
        ({"trials": 2.5}, "trials"),
        ({"timeout": -1}, "timeout"),
        ({"steps": 0}, "steps"),
        ({"workers": 0}, "workers"),
        ({"seed": -1}, "seed"),
        ({"seed": "a"}, "seed"),
        ({"on_error": "ignore"}, "on_error"),
        ({"callbacks": [3]}, "callback"),
        ({"target": "good"}, "target"),
        ({"target": {"lss": 1}}, "did you mean 'loss'"),
        ({"limits": 3}, "limits"),
        ({"deterministic": "yes"}, "deterministic"),
        ({"algorithm": "bayse"}, "did you mean 'bayes'"),
        ({"stop": "asah"}, "did you mean 'asha'"),
        ({"name": ""}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"objective": 3}, "objective"),
        ({"space": 3}, "space"),
        ({"minimize": None}, "exactly one way"),
        ({"minimize": ["loss"]}, "no name"),
        ({"minimize": None, "objectives": ["loss"]}, "'objectives' is no mapping"),
        ({"constraints": ["size <= 1"]}, "'constraints' is no mapping"),
        ({"store": 3}, "store"),
        ({"first": ["x"]}, "no configuration"),
        ({"space": 3, "first": [{"x": 1}]}, "no Space"),
    ]
    for options, sign in bad:
        with pytest.raises(UsageError, match=sign):
            tuned(**{"trials": 2, "store": tmp_path / "s.db", "name": "n", **options})
    assert rows(tmp_path / "s.db") == []


def test_a_study_in_memory_leaves_neither_folder_nor_warning(tmp_path):
    script = """
import gc, os, tempfile, luthier as lt
study = lt.tune(lambda t: (t.checkpoint, t["x"])[1], lt.Space(x=lt.Float(0, 1)), minimize="l", trials=3, progress=False)
assert len(os.listdir(study.folder)) == 3
other = lt.tune(lambda t: t["x"], lt.Space(x=lt.Float(0, 1)), minimize="l", trials=2, progress=False)
del study
gc.collect()
assert len(os.listdir(tempfile.gettempdir())) == 1
"""
    run = [sys.executable, "-W", "error::ResourceWarning", "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_nothing_heavy_is_loaded_by_import():
    code = "import sys, luthier, luthier.cli; print(json.dumps(sorted(sys.modules)))".replace(
        "import sys", "import sys, json"
    )
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout))
    assert not loaded & {"torch", "sqlalchemy", "plotly", "pandas", "scipy", "sklearn", "onnxruntime", "rich.live"}
    code = (
        "import luthier as lt, sys; lt.tune(lambda t: 1.0, lt.Space(x=lt.Float(0, 1)), minimize='l', trials=1,"
        " algorithm='random', progress=False); print('torch' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


def test_functions_and_lambdas_as_options_survive_another_process(tmp_path):
    """Their printed forms hold addresses, or look alike: neither may confuse a resumed study."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, luthier as lt\n"
        "class Plain: pass\n"
        "f = lambda x: x\n"
        "options = [f, lambda x: -x, abs, Plain(), (1, 2), 'abs', 3.0, 3]\n"
        "space = lt.Space(x=lt.Float(0, 1), act=lt.Choice(options), on=lt.Int(1, 2).when(act=f))\n"
        "s = lt.tune(lambda t: options.index(t['act']), space, minimize='l', algorithm='random', progress=False,\n"
        "            trials=int(sys.argv[2]), store=sys.argv[1], name='n')\n"
        "assert all(options.index(t.params['act']) == t.metrics['l'] for t in s.trials)\n"
        "assert all(('on' in t.params) == (t.params['act'] is f) for t in s.trials)\n"
        "print(len(s.trials))\n"
    )
    for trials in ("12", "24"):
        done = subprocess.run([sys.executable, script, tmp_path / "s.db", trials], capture_output=True, text=True)
        assert done.stdout.strip() == trials, done.stderr
    assert len({t.params["act"] for t in lt.load_study(tmp_path / "s.db").trials}) > 4
