"""What the Bayesian search does before its model, on a plateau and in noise, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

import luthier as lt
from luthier.objectives import Objectives
from luthier.search._encode import Encoding
from luthier.search._memory import Memory
from luthier.search.bayes import design, model, plateau
from luthier.trial import Report, Status, Trial

MIXED = lt.Space(a=lt.Float(0, 1), b=lt.Choice(["u", "v", "w"]), c=lt.Int(1, 5), d=lt.Float(0, 1).when(b="u"))
CHOICES = lt.Space({f"c{i}": lt.Choice(list("abcde")) for i in range(6)} | {"x": lt.Float(0, 1)})


def test_the_farthest_row_comes_first():
    encoding, rng = Encoding(MIXED), np.random.default_rng(0)
    unit, known = rng.random((20, 4)), rng.random((5, 4))

    def distance(row: np.ndarray) -> float:
        """To the nearest known row: categories differ or not, and an inactive number stands in the middle."""
        one = encoding.features(row[None])[0]
        gaps = []
        for other in encoding.features(known):
            away = (one - other) ** 2
            away[1] = float(one[1] != other[1])
            gaps.append(away.sum())
        return min(gaps)

    ordered = [distance(row) for row in design.farthest(encoding, unit, known)]
    assert ordered == sorted(ordered, reverse=True)
    assert len(set(np.round(ordered, 12))) > 10


@pytest.mark.parametrize("seed", range(3))
def test_proposals_before_any_result_keep_apart(seed):
    space = lt.Space(x=lt.Float(0, 1), y=lt.Float(0, 1))
    loop = lt.AskTell(space, algorithm="bayes", minimize="loss", seed=seed)
    points = np.array([[t.params["x"], t.params["y"]] for t in (loop.ask() for _ in range(12))])
    gaps = np.sqrt(((points[:, None] - points) ** 2).sum(-1)) + np.eye(12)
    assert gaps.min() > 0.12  # 12 uniform points: 0.04 on average


def test_a_plateau_is_many_results_like_the_best_in_a_space_of_choices():
    choices, numbers = (
        Encoding(CHOICES),
        Encoding(lt.Space(x=lt.Float(0, 1), b=lt.Choice(["u", "v"]), y=lt.Float(0, 1))),
    )
    falling = np.linspace(2.0, 1.0, 12)
    flat = np.concatenate([falling, [0.5, 0.5, 1.5, 0.501, 0.5, 0.502, 2.0, 0.5]])[:, None]
    assert plateau.reached(choices, flat)
    assert not plateau.reached(numbers, flat)
    assert plateau.reached(choices, flat[:-4])  # three of the last eight
    assert not plateau.reached(choices, flat[:-5])  # two
    assert not plateau.reached(choices, falling[:, None])
    assert not plateau.reached(choices, np.hstack([flat, flat]))
    assert not plateau.reached(choices, np.zeros((11, 1)))


def test_elsewhere_is_ordered_by_what_is_wanted():
    class Wanted:
        def __call__(self, rows: np.ndarray) -> np.ndarray:
            return np.asarray(-np.abs(rows[:, 6] - 0.5))

        def with_gradient(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError("nothing is climbed")

    found = plateau.elsewhere(Encoding(CHOICES), Wanted(), np.random.default_rng(1))
    away = np.abs(found[:, 6] - 0.5)
    assert (np.diff(away) >= 0).all()
    assert len(np.unique(np.floor(found[:, 0] * 5))) >= 3


def test_every_other_proposal_leaves_a_plateau():
    away = np.zeros(2)
    for seed in range(6):
        loop, rng = lt.AskTell(CHOICES, algorithm="bayes", minimize="loss", seed=seed), np.random.default_rng(seed)
        for i in range(12):
            loop.add({f"c{j}": "bcde"[rng.integers(4)] for j in range(6)} | {"x": i / 12}, 1.0 + rng.random())
        for i in range(10):
            loop.add({f"c{j}": "a" for j in range(6)} | {"c0": "abcde"[i % 5], "x": 0.3 + 0.001 * i}, 0.5)
        for trial in (loop.ask(), loop.ask()):
            away[trial.number % 2] += sum(trial.params[f"c{j}"] != "a" for j in range(1, 6)) / 6
    assert away[0] < 2 < 2.5 < away[1]


@pytest.mark.parametrize(("noise", "alike"), [(0.0, False), (0.5, True)])
def test_noisy_results_are_never_taken_as_exact(noise, alike):
    space = lt.Space(x=lt.Float(0, 1), y=lt.Float(0, 1))
    rng, loop, x, y = np.random.default_rng(0), lt.AskTell(space, algorithm="random", minimize="loss"), 0.0, 0.0
    for i in range(40):  # eight places, five results at each
        x, y = loop.ask().params.values() if i % 5 == 0 else (x, y)
        signal = (x - 0.3) ** 2 + (y - 0.6) ** 2
        loop.add({"x": x + 1e-4 * (i % 5), "y": y}, signal + noise * float(rng.normal()))
    memory = Memory(space, loop.objectives)
    learned, models = model.learn(memory, loop.trials), model.Models(memory.encoding)
    at, nothing = rng.random((50, 2)), np.empty((0, 2))
    calm, bold = (model.acquisition(models, learned, nothing, rng, bold)(at) for bold in (False, True))
    assert np.allclose(calm, bold) == alike


@pytest.mark.parametrize(
    ("space", "trials"),
    [
        (lt.Space({f"x{i}": lt.Float(0, 1) for i in range(20)}), 8),
        (lt.Space(x=lt.Float(0, 1), b=lt.Choice([1, 2, 3])), 4),  # two options beyond the first
        (lt.Space(x=lt.Float(0, 1), b=lt.Choice([1, 2, 3]), c=lt.Choice([1, 2]), d=lt.Choice([1, 2])), 7),
        (CHOICES, 10),
    ],
)
def test_options_want_more_first_trials(space, trials):
    assert design.size(Encoding(space)) == trials


def test_stopped_trials_stand_for_their_end_by_the_completed_ones():
    wanted = Objectives.of(objectives={"cost": "min", "score": "max"}, constraints={"hours": "<= 5", "size": "> 2"})
    rng, trials = np.random.default_rng(0), []
    for i in range(30):
        rate, steps = rng.random(), 9 if i % 3 else int(rng.integers(1, 6))
        told = [
            {"cost": rate * s + 0.1 * rng.random(), "score": s - rate, "hours": s * rate} for s in range(1, steps + 1)
        ]
        if i % 5 == 0:
            told = [{"cost": one["cost"]} for one in told]
        ended = {"cost": 9 * rate, "score": 9 - rate, "hours": 9 * rate, "size": 1.0}
        metrics = ended if i % 3 else told[-1]
        reports = tuple(Report(s, one) for s, one in enumerate(told, start=1))
        trials.append(Trial(i, {"x": rate}, Status.COMPLETE if i % 3 else Status.STOPPED, metrics, reports, ended=1.0))
    found = Memory(lt.Space(x=lt.Float(0, 1)), wanted).table(trials)
    for i, trial in enumerate(trials):
        cost, score = trial.metrics["cost"], -trial.metrics.get("score", np.nan)
        hours, size = trial.metrics.get("hours", np.nan), 2 - trial.metrics.get("size", np.nan)
        if trial.status is Status.STOPPED:  # scores rise with the steps: nothing is lost; the size is never reported
            done = [t for t in trials if t.number % 3]
            at = trial.reports[-1].step - 1
            cost += np.median([t.metrics["cost"] - t.reports[at].metrics["cost"] for t in done])
            several = [t for t in done if t.number % 5]
            hours += np.median([t.metrics["hours"] - t.reports[at].metrics["hours"] for t in several])
        np.testing.assert_allclose(found.losses[i], [cost, score])
        np.testing.assert_allclose(found.slacks[i], [hours - 5, size])
        assert found.lack[i] == pytest.approx(np.nansum(np.maximum([hours - 5, size], 0.0)))
