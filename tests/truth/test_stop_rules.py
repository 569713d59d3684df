"""Stop rules against hand counts."""

from __future__ import annotations

from luthier import stop
from luthier.objectives import Objectives
from luthier.trial import Report, Trial

LOSS = Objectives.of(minimize="loss")


def at(number: int, step: int, loss: float) -> Trial:
    return Trial(number, {}, reports=(Report(step, {"loss": loss}),))


def test_asha_keeps_the_best_third_at_a_rung():
    rule = stop.ASHA(min_steps=1, factor=3)
    others = [at(i, 1, float(i)) for i in range(1, 9)]  # losses 1 .. 8; with the newcomer 9 trials, 3 go on
    kept = [loss for loss in (0.5, 1.5, 2.5, 3.5, 8.5) if rule.stops(at(0, 1, loss), others, LOSS) is None]
    assert kept == [0.5, 1.5, 2.5]


def test_asha_judges_at_rungs_only():
    rule = stop.ASHA(min_steps=2, max_steps=50, factor=5)
    others = [Trial(i, {}, reports=tuple(Report(s, {"loss": float(i)}) for s in range(61))) for i in range(1, 30)]
    steps = []
    trial = Trial(0, {})
    for step in range(61):
        trial = trial.with_report(Report(step, {"loss": 99.0}))
        if rule.stops(trial, others, LOSS):
            steps.append(step)
    assert steps == [2, 10]  # 50 is max_steps: the trial ends there anyway


def test_asha_judges_a_rung_that_was_jumped_over():
    rule = stop.ASHA(min_steps=1, factor=3)
    others = [at(i, 5, float(i)) for i in range(1, 9)]
    assert rule.stops(at(0, 5, 99.0), others, LOSS) == "ASHA: place 9 of 9 at step 5"


def test_median_keeps_the_better_half():
    rule = stop.Median(min_trials=5)
    others = [at(i, 4, float(i)) for i in range(1, 8)]  # with the newcomer 8 trials, 4 go on
    kept = [x for x in (0.5, 1.5, 2.5, 3.5, 4.5, 9.0) if rule.stops(at(0, 4, x), others, LOSS) is None]
    assert kept == [0.5, 1.5, 2.5, 3.5]


def test_median_waits_for_enough_others_and_steps():
    others = [at(i, 4, float(i)) for i in range(1, 8)]
    bad = at(0, 4, 99.0)
    assert stop.Median(min_trials=8).stops(bad, others, LOSS) is None
    assert stop.Median(min_steps=5).stops(bad, others, LOSS) is None
    assert stop.Median(min_trials=7).stops(bad, others, LOSS) is not None
