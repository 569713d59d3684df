"""Stop rules against hand counts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from luthier import stop
from luthier.objectives import Objectives
from luthier.trial import Leg, Report, Status, Trial

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


def test_hyperband_has_the_brackets_of_the_paper():
    """n = ceil((B / R) eta^s / (s + 1)) with B = (s_max + 1) R, algorithm 1; for R = 81 and eta = 3 as in its table."""
    rule = stop.Hyperband(min_steps=1, max_steps=81, factor=3)
    races = [rule.race(n) for n in range(2 * 143)]
    assert rule.sizes() == [81, 34, 15, 8, 5]
    assert [races[:143].count(s) for s in range(5)] == [81, 34, 15, 8, 5]
    assert races[143:] == races[:143]
    steps = [0.0] * 5  # what a bracket costs if exactly a third is kept at each of its rungs
    for s, n in enumerate(rule.sizes()):
        rungs = [3**k for k in range(s, 5)]
        steps[s] = sum(n / 3**k * (r - (rungs[k - 1] if k else 0)) for k, r in enumerate(rungs))
    assert max(steps) < 1.5 * min(steps)
    for width in (20, 40, 80):  # spread evenly: no stretch lacks a race that is due
        for s, n in enumerate(rule.sizes()):
            counts = [races[i : i + width].count(s) for i in range(143)]
            assert max(counts) - min(counts) <= 3
            assert abs(sum(counts) / 143 - width * n / 143) < 1


def test_hyperband_keeps_its_races_apart():
    rule = stop.Hyperband(min_steps=1, max_steps=27, factor=3)
    races = [rule.race(n) for n in range(49)]
    last = races.index(3)
    everyone = [at(n, 20, float(n)) for n in range(49) if n != last]
    assert rule.stops(at(last, 20, 99.0), everyone, LOSS) is None  # the last race stops nobody
    second = races.index(1)
    early = [at(n, 1, float(n)) for n in range(49) if n != second]
    assert rule.stops(at(second, 1, 99.0), early, LOSS) is None  # its first rung is step 3
    third = [at(n, 3, float(n)) for n in range(49) if n != second]
    assert rule.stops(at(second, 3, 99.0), third, LOSS) == "Hyperband, race 1: place 12 of 12 at step 3"


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_median_is_a_percentile_by_brute_force(share):
    """Goes on exactly if fewer than share x field trials are better at the step."""
    dice = np.random.default_rng(0)
    rule = stop.Median(min_trials=4, share=share)
    for _ in range(50):
        values = dice.normal(size=dice.integers(2, 15))
        others = [at(i, int(dice.integers(2, 6)), v) for i, v in enumerate(values, start=1)]
        mine = float(dice.normal())
        field = [t.reports[0].metrics["loss"] for t in others if t.reports[0].step >= 3]
        told = rule.stops(at(0, 3, mine), [replace_step(t) for t in others], LOSS)
        better = sum(v < mine for v in field)
        goes_on = len(field) + 1 <= 4 or better < share * (len(field) + 1)
        assert (told is None) == goes_on


def replace_step(trial: Trial) -> Trial:
    """The same value from step 3 on, where the trial got as far."""
    step, loss = trial.reports[0].step, trial.reports[0].metrics["loss"]
    return Trial(trial.number, {}, reports=tuple(Report(s, {"loss": loss}) for s in range(2, step + 1)))


def test_rungs_wait_until_every_objective_has_got_there():
    """Accuracy at every step, latency at even ones only: the rung at 3 is judged at 4."""
    both = Objectives.of(objectives={"accuracy": "max", "ms": "min"})

    def curve(number: int, good: float) -> list[Trial]:
        trial, out = Trial(number, {}), []
        for step in range(1, 7):
            trial = trial.with_report(Report(step, {"accuracy": good}))
            out.append(trial)
            if step % 2 == 0:
                trial = trial.with_report(Report(step, {"ms": -good}))
                out.append(trial)
        return out

    others = [curve(i, float(i))[-1] for i in range(1, 10)]
    rule = stop.ASHA(min_steps=3, factor=3)
    told = [t.reports[-1].step for t in curve(0, -1.0) if rule.stops(t, others, both)]
    assert told == [4]
    paused = [t.reports[-1] for t in curve(0, -1.0) if stop.ASHA(min_steps=3, promote=True).pauses(t, both)]
    assert paused == [Report(4, {"accuracy": -1.0, "ms": 1.0})]


def test_promotion_takes_the_best_third_of_the_highest_rung_once_each():
    rule = stop.ASHA(min_steps=1, max_steps=27, promote=True)

    def rests(number: int, step: int, loss: float) -> Trial:
        reports = tuple(Report(s, {"loss": loss}) for s in range(1, step + 1))
        return Trial(number, {}, Status.PAUSED, {"loss": loss}, reports, legs=(Leg(number, step),))

    low = [rests(n, 1, float(n)) for n in range(5)]
    assert rule.promotes(low, LOSS) == 0  # floor(5 / 3) = 1
    gone = [rests(0, 3, 0.0), *low[1:]]
    assert rule.promotes(gone, LOSS) is None  # the only place is taken
    assert rule.promotes([*gone, rests(5, 1, 5.0)], LOSS) == 1  # floor(6 / 3) = 2: the next one
    high = [rests(n, 3, float(n)) for n in range(3)] + [rests(n, 1, float(n)) for n in range(3, 20)]
    assert rule.promotes(high, LOSS) == 0  # the higher rung first, though the lower one has places, too
    assert rule.promotes(low[:2], LOSS) is None
    assert rule.promotes(low[:2], LOSS, closing=True) == 0  # no more will come


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


def test_wilcoxon_is_the_exact_test_by_enumeration():
    """One-sided p of the signed-rank test: the share of all 2^n signs with at least as large a rank sum."""
    dice = np.random.default_rng(1)
    best = folds(1, *[0.0] * 8)
    for _ in range(60):
        gaps = dice.normal(0.4, 1.0, size=8)
        ranks = np.abs(gaps).argsort().argsort() + 1.0
        mine = ranks[gaps > 0].sum()
        sums = [sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=8)]
        p = np.mean([s >= mine for s in sums])
        for level in (0.01, 0.05, 0.2, 0.5):
            told = stop.Wilcoxon(p=level).stops(folds(0, *gaps), [best], LOSS)
            assert (told is not None) == (p < level), (gaps, p)
