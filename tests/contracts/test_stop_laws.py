"""Laws that every stop rule obeys; the rules are found, not listed."""

from __future__ import annotations

import math

import pytest

from luthier import stop
from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.trial import Report, Status, Trial

ONE = Objectives.of(minimize="loss")
TWO = Objectives.of(objectives={"loss": "min", "speed": "max"})
BOUND = Objectives.of(minimize="loss", constraints={"size": "<= 1"})


@pytest.fixture(params=stop.names())
def rule(request) -> stop.StopRule:
    return stop.get(request.param)


def curve(number: int, steps: int, **level: float) -> Trial:
    """Metrics that fall towards their levels."""
    trial = Trial(number, {})
    for step in range(1, steps + 1):
        trial = trial.with_report(Report(step, {name: value + 1 / step for name, value in level.items()}))
    return trial.ending(Status.COMPLETE, 1.0) if number else trial


def first_stop(rule: stop.StopRule, whole: Trial, others: list[Trial], objectives: Objectives) -> int | None:
    trial = Trial(whole.number, {})
    for report in whole.reports:
        trial = trial.with_report(report)
        if rule.stops(trial, others, objectives):
            return report.step
    return None


@pytest.mark.parametrize("objectives", [ONE, TWO])
def test_the_best_is_never_stopped(rule, objectives):
    others = [curve(i, 27, loss=1.0 + i, speed=-float(i)) for i in range(1, 30)]
    assert first_stop(rule, curve(0, 27, loss=0.0, speed=9.0), others, objectives) is None


@pytest.mark.parametrize("objectives", [ONE, TWO])
def test_the_hopeless_is_stopped_early(rule, objectives):
    others = [curve(i, 27, loss=float(i), speed=-float(i)) for i in range(1, 30)]
    at = first_stop(rule, curve(0, 27, loss=99.0, speed=-99.0), others, objectives)
    assert at is not None
    assert at <= 9


def test_a_point_of_the_front_is_not_stopped(rule):
    """Best in its own objective though worst in the other: no single-objective rule would keep it."""
    others = [curve(i, 27, loss=float(i), speed=-1.0 - i) for i in range(1, 30)]
    assert first_stop(rule, curve(0, 27, loss=50.0, speed=9.0), others, TWO) is None


def test_breaking_a_constraint_counts_first(rule):
    others = [curve(i, 27, loss=float(i), size=-2.0) for i in range(1, 30)]
    assert first_stop(rule, curve(0, 27, loss=-5.0, size=7.0), others, BOUND) is not None


def test_nobody_is_judged_alone(rule):
    assert first_stop(rule, curve(0, 27, loss=99.0), [], ONE) is None


def test_a_diverged_trial_is_stopped_at_once(rule):
    trial = Trial(0, {}).with_report(Report(0, {"loss": math.nan}))
    assert "loss" in rule.stops(trial, [], ONE)


def test_other_metrics_may_be_reported_at_other_steps(rule):
    trial = Trial(0, {}).with_report(Report(1, {"note": 1.0})).with_report(Report(3, {"note": math.nan}))
    others = [curve(i, 27, loss=float(i)) for i in range(1, 30)]
    assert rule.stops(trial, others, ONE) is None


def test_the_answer_depends_on_nothing_but_the_arguments(rule):
    others = [curve(i, 9, loss=float(i % 7), speed=float(i % 5)) for i in range(1, 20)]
    trial = curve(0, 9, loss=3.0, speed=2.0)
    answers = {rule.stops(trial, list(order), TWO) for order in (others, others, tuple(others))}
    assert len(answers) == 1


def test_wrong_settings_are_refused():
    for bad in (
        lambda: stop.ASHA(min_steps=0),
        lambda: stop.ASHA(min_steps=9, max_steps=3),
        lambda: stop.ASHA(factor=1),
        lambda: stop.Median(share=1.5),
        lambda: stop.Median(min_trials=0),
        lambda: stop.Hyperband(min_steps=9, max_steps=3),
        lambda: stop.Wilcoxon(p=0.7),
        lambda: stop.Wilcoxon(min_steps=0),
        lambda: stop.get("asah"),
        lambda: stop.get(stop.ASHA),
    ):
        with pytest.raises(UsageError):
            bad()
