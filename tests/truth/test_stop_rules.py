"""Stop rules against hand counts."""

from __future__ import annotations

from luthier import stop
from luthier.objectives import Objectives
from luthier.trial import Report, Status, Trial

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


def test_hyperband_gives_each_later_race_a_third_and_keeps_them_apart():
    rule = stop.Hyperband(min_steps=1, max_steps=27, factor=3)
    races = [rule.race(n) for n in range(81)]
    assert [races.count(s) for s in range(4)] == [54, 18, 6, 3]
    last = races.index(3)
    everyone = [at(n, 20, float(n)) for n in range(81) if n != last]
    assert rule.stops(at(last, 20, 99.0), everyone, LOSS) is None  # the last race stops nobody
    second = races.index(1)
    early = [at(n, 1, float(n)) for n in range(81) if n != second]
    assert rule.stops(at(second, 1, 99.0), early, LOSS) is None  # its first rung is step 3
    third = [at(n, 3, float(n)) for n in range(81) if n != second]
    assert rule.stops(at(second, 3, 99.0), third, LOSS) == "Hyperband, race 1: place 18 of 18 at step 3"


def folds(number: int, *losses: float) -> Trial:
    reports = tuple(Report(k, {"loss": loss}) for k, loss in enumerate(losses, start=1))
    return Trial(number, {}, Status.COMPLETE, {"loss": sum(losses) / len(losses)}, reports)


def test_wilcoxon_stops_once_chance_cannot_explain_it():
    """n folds, all worse: p = 2^-n, so that the fifth is the first below 0.05."""
    best = folds(1, *[0.0] * 9)
    gaps = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    told = [n for n in range(1, 7) if stop.Wilcoxon().stops(folds(0, *gaps[:n]), [best], LOSS)]
    assert told == [5, 6]
    assert stop.Wilcoxon(p=0.2).stops(folds(0, *gaps[:3]), [best], LOSS) is not None  # 2^-3 < 0.2


def test_wilcoxon_spares_ties_and_mixed_folds():
    best = folds(1, *[0.0] * 9)
    assert stop.Wilcoxon().stops(folds(0, *[0.0] * 9), [best], LOSS) is None
    assert stop.Wilcoxon().stops(folds(0, 1.0, -1.1, 1.2, -1.3, 1.4, -1.5, 1.6), [best], LOSS) is None
