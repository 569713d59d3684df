"""Laws that every executor obeys: whatever a trial does is contained and recorded, and the study goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

import luthier as lt
from luthier import run
from luthier.errors import MissingExtra, UsageError
from luthier.trial import Status

SPACE = lt.Space(x=lt.Int(0, 9))
EXECUTORS = [name for name in run.names() if name != "ray"]


def helper(x: int) -> float:
    """Lives in a module that a worker cannot import: it must travel by value."""
    return float(x) + 0.5


def tuned(objective, executor: str, trials: int = 3, **options):
    first = [{"x": i} for i in range(trials)]
    options = {"minimize": "loss", "algorithm": "random", "progress": False, **options}
    return lt.tune(objective, SPACE, first=first, trials=trials, executor=executor, **options)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_trial_is_a_mapping_with_a_number_a_seed_and_a_folder(executor):
    def objective(trial):
        assert dict(trial) == trial.params == {"x": trial["x"]}
        assert (len(trial), trial.number) == (1, trial["x"])
        with open(os.path.join(trial.checkpoint, "state"), "w") as file:
            file.write("kept")
        return {"loss": helper(trial["x"]), "seed": trial.seed}

    study = tuned(objective, executor)
    assert [t.metrics["loss"] for t in study.trials] == [0.5, 1.5, 2.5]
    assert len({t.metrics["seed"] for t in study.trials}) == 3
    assert [(study.folder / str(i) / "state").read_text() for i in range(3)] == ["kept"] * 3
    assert [t.metrics["seed"] for t in tuned(objective, "inline").trials] == [t.metrics["seed"] for t in study.trials]


RESULTS = [
    (lambda: None, "NoneType"),
    (lambda: float("nan"), "nan"),
    (lambda: "0.5 or so", "str"),
    (lambda: {"accuracy": 1.0}, "'loss'"),
    (lambda: lambda: 3, "function"),
    (lambda: [1, 2], "list"),
    (lambda: 1 / 0, "ZeroDivisionError: division by zero (test_executor_laws.py:"),
    (lambda: sys.exit(3), r"sys.exit(3)"),
    (lambda: (_ for _ in ()).throw(MemoryError()), "out of memory"),
    (lambda: (_ for _ in ()).throw(ValueError("x" * 9999)), "ValueError: xxx"),
]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_bad_ends_are_recorded_with_their_cause(executor):
    space = lt.Space(x=lt.Int(0, len(RESULTS)))
    study = lt.tune(
        lambda t: RESULTS[t["x"]][0]() if t["x"] < len(RESULTS) else 1.0,
        space,
        minimize="loss",
        first=[{"x": i} for i in range(len(RESULTS) + 1)],
        trials=len(RESULTS) + 1,
        executor=executor,
        progress=False,
    )
    for trial, (_, sign) in zip(study.trials, RESULTS, strict=False):
        assert trial.status is Status.FAILED
        assert sign in trial.cause, trial.cause
        assert len(trial.cause) < 1000
    assert study.best.number == len(RESULTS)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_reports_arrive_and_bad_ones_fail_the_trial(executor):
    calls = [(0, {"loss": 1.5}), (3.5, {"loss": 1.0}), (1, {}), (1, {"loss": "low"}), (-1, {"loss": 1.0})]

    def objective(trial):
        step, metrics = calls[trial["x"]]
        trial.report(step, **metrics)
        return 1.0

    study = tuned(objective, executor, len(calls))
    assert [t.status for t in study.trials] == [Status.COMPLETE] + [Status.FAILED] * 4
    assert study.trials[0].reports[0].metrics == {"loss": 1.5}


class StopAll:
    def stops(self, trial, others, objectives):
        return "because" if trial.number else None


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_stopped_trial_keeps_its_last_report_even_if_the_objective_swallows_the_stop(executor):
    def objective(trial):
        try:
            trial.report(4, loss=7.0)
        except Exception:
            if trial["x"] == 1:
                raise
        return 1.0

    study = tuned(objective, executor, stop=StopAll())
    assert [t.status for t in study.trials] == [Status.COMPLETE, Status.STOPPED, Status.STOPPED]
    assert [t.metrics for t in study.trials] == [{"loss": 1.0}, {"loss": 7.0}, {"loss": 7.0}]
    assert study.trials[1].cause == "because"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_on_error_raise_ends_the_study_with_the_story(executor):
    def objective(trial):
        if trial["x"] == 1:
            raise ValueError("the reason")
        return 1.0

    with pytest.raises(lt.LuthierError, match=r"(?s)trial 1 failed: ValueError: the reason.*Traceback"):
        tuned(objective, executor, on_error="raise")


# what only processes can contain


def survivors(tag: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if tag in (p.info["cmdline"] or [])]


def eat() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(50_000_000))
        time.sleep(0.01)


def orphan(tag: str) -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", tag])
    os.kill(os.getpid(), 9)


def flood() -> None:
    for _ in range(200):
        print("y" * 1_000_000)


def daemon(tag: str) -> None:
    """A child in a session of its own, whose parent is gone: nobody's child any more."""
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)', "
    subprocess.run([sys.executable, "-c", code + f"{tag!r}], start_new_session=True)"])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_forked_copy_does_not_speak_for_its_trial(executor):
    """The child of a bare fork returns from the objective, too; its result and its reports are nobody's."""

    def objective(trial):
        if trial["x"] == 0 and os.fork() == 0:
            return 7.0
        if trial["x"] == 0:
            os.wait()
        return float(trial["x"])

    study = tuned(objective, executor, trials=5)
    assert [t.metrics["loss"] for t in study.trials] == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.slow
def test_wild_trials_are_contained():
    tag = f"luthier-orphan-{os.getpid()}"
    wild = [
        (lambda: time.sleep(3600), "out of time"),
        (eat, "out of memory"),
        (lambda: os.kill(os.getpid(), 11), "SIGSEGV"),
        (lambda: os._exit(7), "exit code 7"),
        (lambda: orphan(tag), "SIGKILL"),
    ]
    acts = [*(act for act, _ in wild), flood, lambda: None, lambda: daemon(tag)]

    def objective(trial):
        acts[trial["x"]]()
        return 1.0

    limits = lt.Limits(seconds=9, memory_gb=0.6)
    study = tuned(objective, "processes", len(acts), workers=2, limits=limits)
    for trial, (_, sign) in zip(study.trials, wild, strict=False):
        assert trial.status is Status.FAILED
        assert sign in trial.cause
    assert [t.status for t in study.trials[5:]] == [Status.COMPLETE] * 3
    assert survivors(tag) == []


def test_workers_share_the_cores_and_have_no_main_guard_trouble(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import os, luthier as lt\n"
        "f = lambda t: {'loss': 1.0, 'threads': int(os.environ['OMP_NUM_THREADS'])}\n"
        "s = lt.tune(f, lt.Space(x=lt.Float(0, 1)), minimize='loss', trials=4, workers=2,"
        " algorithm='random', progress=False)\n"
        "print([t.metrics['threads'] for t in s.trials])\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "512"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env, cwd=tmp_path)
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert done.stdout.strip() == str([float(share)] * 4), done.stderr


def test_an_objective_that_cannot_travel_is_refused_before_anything_starts(tmp_path):
    with open(tmp_path / "file", "w") as file, pytest.raises(UsageError, match="worker processes"):
        tuned(lambda t: file.fileno(), "processes", store=tmp_path / "s.db", name="n")


def test_an_executor_whose_package_is_missing_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"pip install 'luthier\[ray\]'"):
        tuned(helper, "ray")


def test_impossible_combinations_are_refused():
    with pytest.raises(UsageError, match="processes"):
        tuned(helper, "inline", workers=2)
    with pytest.raises(UsageError, match="processes"):
        tuned(helper, "inline", limits=lt.Limits(seconds=1))
    with pytest.raises(UsageError, match="unknown executor"):
        tuned(helper, "proceses")
    for bad in ({"seconds": 0}, {"memory_gb": -1}, {"seconds": "1"}, {"seconds": True}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            lt.Limits(**bad)
