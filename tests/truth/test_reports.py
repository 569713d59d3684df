"""Pages open offline, hold what they were given, and escape what users wrote."""

import re

import pytest

from luthier.report import run_page, study_page
from luthier.report.html import table
from luthier.report.study_page import course_figure

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def run():
    cost = {"parameters": 1e6, "macs": 2e6, "bytes": 4e6, "latency_ms": 1.0, "latency_low": 0.9, "latency_high": 1.1}
    ratio = {"parameters": 1.0, "macs": 1.0, "bytes": 1.0, "latency": 1.0, "latency_low": 0.98, "latency_high": 1.02}
    dense = {"kind": "dense", "trial": None, "valid": {"accuracy": 0.99}, "test": {"accuracy": 0.98}, "params": {}}
    dense |= {"cost": cost, "ratio": ratio, "cuts": [], "checks": []}
    check = {"name": "cut == masked", "error": 1e-15, "limit": 1e-8, "words": EVIL, "passed": True}
    cuts = [{"name": "stage1.conv1", "before": 64, "after": 24}]
    point = {**dense, "kind": "distilled", "trial": 3, "cuts": cuts, "checks": [check], "params": {"note": EVIL}}
    trials = [
        {"number": n, "kind": "pruned", "status": s, "feasible": n != 2, "params": {"lr": 0.1}, "cause": c,
         "metrics": {"accuracy": 0.9, "latency_ratio": 0.4}, "curve": [{"step": 0, "accuracy": 0.5}], "seconds": 1.0}
        for n, s, c in ((1, "complete", None), (2, "complete", None), (3, "complete", None), (4, "stopped", EVIL))
    ]  # fmt: skip
    return {
        "title": EVIL, "note": "fine", "metric": {"name": "accuracy", "direction": "max"}, "dense": dense,
        "front": [point], "best": 3, "trials": trials,
        "settings": {"batch_size": 32, "budget": {"latency": 0.5}, "command": "luthier compress x.py"},
    }  # fmt: skip


@pytest.fixture
def study():
    trials = [
        {
            "number": n,
            "status": s,
            "feasible": True,
            "params": {"x": 0.5, "kind": EVIL},
            "metrics": m,
            "cause": c,
            "seconds": 1,
        }
        for n, s, m, c in (
            (0, "complete", {"loss": 1.0, "ms": 3.0}, None),
            (1, "complete", {"loss": 0.5, "ms": 4.0}, None),
            (2, "failed", {}, EVIL),
        )
    ]
    return {"name": EVIL, "objectives": [("loss", "min")], "trials": trials, "best": 1, "front": [1],
            "importance": {"x": 0.7, "kind": 0.3}, "command": "luthier tune x.py"}  # fmt: skip


def _own(page: str) -> str:
    """The page without plotly's own script."""
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)


def test_a_run_page_holds_the_numbers(run):
    page = _own(run_page(run))
    for text in ("24 of 64", "0.9800", "cut == masked", "luthier compress x.py", "point 3"):
        assert text in page


def test_a_run_without_a_best_point_still_has_a_page(run):
    page = run_page({**run, "best": None, "front": [], "note": "No trial met the budget"})
    assert "No trial met the budget" in page


def test_a_study_page_holds_the_numbers(study):
    page = _own(study_page(study))
    assert "trial 1" in page
    assert "luthier tune x.py" in page


def test_a_study_with_two_objectives_shows_the_trade_off(study):
    page = study_page({**study, "objectives": [("loss", "min"), ("ms", "min")]})
    assert "behind the front" in page


def test_an_empty_study_has_a_page(study):
    assert "No trial has completed" in study_page({**study, "trials": [], "best": None, "front": [], "importance": {}})


@pytest.mark.parametrize("page", ["run", "study"])
def test_nothing_is_fetched_and_nothing_users_wrote_is_run(page, run, study):
    text = run_page(run) if page == "run" else study_page(study)
    assert EVIL not in _own(text)
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)


def test_values_with_commas_stay_in_one_piece(study):
    """In the hover text each parameter has a line of its own."""
    trials = [{**t, "params": {"shape": "8, 16, 32", "lr": 0.1}} for t in study["trials"]]
    page = _own(study_page({**study, "trials": trials}))
    assert r"shape = 8, 16, 32\u003cbr\u003elr = 0.1" in page


def test_columns_of_words_are_on_the_left_and_numbers_on_the_right():
    rows = [["0", "complete<small>why</small>", "0.5", ""], ["1", "<b>stopped</b>", "nan", "2"], ["2", "", "", "x"]]
    page = table(["trial", "status", "loss", "kind"], rows, marked=1)
    assert page.count("<td class=words>") == 2 * len(rows)
    assert "<th>loss</th><th class=words>kind</th>" in page
    assert "<tr class=marked><td>1</td>" in page
    assert "<th>a</th>" in table(["a"], [])


def test_the_front_is_a_staircase_in_the_sense_of_its_objectives(study):
    objectives = [("error", "min"), ("ms", "min")]
    trials = [{**t, "metrics": {"error": float(9 - i), "ms": float(i)}} for i, t in enumerate(study["trials"])]
    done = [t["number"] for t in trials if t["status"] == "complete"]
    drawn = course_figure({**study, "objectives": objectives, "trials": trials, "front": done})
    behind, front = drawn.data
    assert len(behind.x) == 0
    assert list(front.x) == sorted(front.x)
    assert front.line.shape == "hv"
