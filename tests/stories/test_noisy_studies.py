"""Noisy objectives: what a study calls its best, and leaders that are evaluated again."""

from __future__ import annotations

import json

import numpy as np
import pytest

import luthier as lt
from luthier.adapters.sklearn import SearchCV
from luthier.errors import UsageError

SPACE = lt.Space(x=lt.Float(0, 1), y=lt.Float(0, 1))


def _value(p):
    return (p["x"] - 0.3) ** 2 + (p["y"] - 0.6) ** 2


def noisy(trial):
    return _value(trial) + 0.2 * np.random.default_rng(trial.seed).normal()


def two(trial):
    draw = np.random.default_rng(trial.seed).normal(size=2)
    return {"f": trial["x"] + 0.1 * draw[0], "g": 1 - trial["x"] + trial["y"] + 0.1 * draw[1]}


def _tune(objective=noisy, **how):
    given = {"minimize": "loss", "algorithm": "random", "trials": 30, "progress": False, **how}
    return lt.tune(objective, SPACE, **given)


def test_best_holds_an_estimate_where_results_are_noisy_and_the_luckiest_stays_known():
    study = _tune(trials=60, seed=2)
    assert study.best.estimates["loss"].by == "model"
    assert study.best == study.ranking[0] == study.front[0]
    assert study.best.metrics == study.trials[study.best.number].metrics
    assert study.best_measured.metrics["loss"] == min(t.metrics["loss"] for t in study.trials)
    assert _value(study.best.params) < _value(study.best_measured.params)
    frame = study.to_frame()
    assert frame.loc[study.best.number, "loss mean"] == study.best.estimates["loss"].mean


def test_without_noise_best_is_the_best_measurement():
    study = _tune(lambda t: _value(t), trials=60)
    assert study.best == study.best_measured
    assert not study.best.estimates
    assert "loss mean" not in study.to_frame()


def test_a_grid_names_the_best_of_its_table():
    space = lt.Space(x=lt.Ordinal(list(np.linspace(0, 1, 8))), y=lt.Ordinal(list(np.linspace(0, 1, 8))))
    study = lt.tune(noisy, space, minimize="loss", algorithm="grid", progress=False)
    assert study.best == study.best_measured


def test_search_cv_keeps_scikit_learns_meaning():
    from sklearn.datasets import load_iris
    from sklearn.tree import DecisionTreeClassifier

    x, y = load_iris(return_X_y=True)
    space = {"max_depth": lt.Int(1, 6), "min_samples_leaf": lt.Int(1, 30)}
    found = SearchCV(DecisionTreeClassifier(random_state=0), space, trials=25, cv=3, progress=False).fit(x, y)
    assert found.best_score_ == max(found.cv_results_["mean_test_score"])


def test_leaders_are_evaluated_again_on_top_of_the_trials():
    study = _tune(replicate=4)
    assert len(study.trials) == 30 + 5 * 4
    assert sorted(map(len, study.repeats.values())) == [4] * 5
    for number, again in study.repeats.items():
        assert all(t.params == study.trials[number].params for t in again)
        assert len({t.metrics["loss"] for t in again}) == 4
    found = study.best.estimates["loss"]
    values = [t.metrics["loss"] for t in study.repeats[study.best.number]]
    assert (found.by, found.count) == ("repeats", 4)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low < found.mean < found.high
    means = {n: np.mean([t.metrics["loss"] for t in again]) for n, again in study.repeats.items()}
    assert study.best.number == min(means, key=means.get)
    assert [t.number for t in study.ranking[:5]] == sorted(means, key=means.get)
    assert len(study.ranking) == 30


def test_the_same_leaders_whoever_runs_them(tmp_path):
    inline = _tune(replicate=2, deterministic=True)
    workers = _tune(replicate=2, deterministic=True, workers=3, store=tmp_path / "s.db", name="a")
    assert {t.number: t.metrics for t in workers.trials} == {t.number: t.metrics for t in inline.trials}
    assert workers.best.estimates == inline.best.estimates
    loaded = lt.load_study(tmp_path / "s.db", "a")
    assert loaded.best == workers.best
    assert loaded.best.estimates == workers.best.estimates
    assert loaded.replay() == []


def test_repeats_survive_interruption_and_resume(tmp_path):
    how = {"store": tmp_path / "s.db", "name": "a", "replicate": 3}

    def breaks(trial):
        if trial.number == 36:
            raise KeyboardInterrupt
        return noisy(trial)

    with pytest.raises(KeyboardInterrupt):
        _tune(breaks, **how)
    first = _tune(**how)
    assert len(first.trials) == 45
    assert sorted(map(len, first.repeats.values())) == [3] * 5
    again = _tune(**how)
    assert len(again.trials) == 45
    longer = _tune(**{**how, "trials": 40})
    searched = [
        t for t in longer.trials if t.number not in {r.number for some in longer.repeats.values() for r in some}
    ]
    assert len(searched) == 40
    assert longer.replay() == []


def test_a_study_goes_on_to_repeats_later(tmp_path):
    how = {"store": tmp_path / "s.db", "name": "a"}
    assert not _tune(**how).repeats
    study = _tune(**how, replicate=2)
    assert len(study.trials) == 40
    study.export(tmp_path / "s.jsonl")
    from luthier.study import import_study

    copy = import_study(tmp_path / "s.jsonl", tmp_path / "t.db")
    assert copy.best.estimates == study.best.estimates
    assert copy.repeats.keys() == study.repeats.keys()


def test_a_callback_that_stops_stops_repeats_too_and_sees_them_live():
    seen = []

    def stop_early(study, trial):
        if trial.number == 9:
            study.stop()

    assert len(_tune(replicate=2, callbacks=[stop_early]).trials) == 10

    def watch(study, trial):
        seen.append(len(study.repeats))

    _tune(replicate=2, callbacks=[watch])
    assert seen[29] == 0
    assert seen[-1] == 5


def test_a_target_ends_the_search_and_repeats_check_it():
    study = _tune(target=-0.1, trials=200, replicate=2)
    searched = len(study.trials) - 2 * min(5, len(study.ranking))
    assert searched < 200
    assert study.best.estimates["loss"].count == 2


def test_leaders_that_fail_again_do_not_count():
    def fragile(trial):
        if trial.number >= 30 and trial["x"] > 0.3:
            raise RuntimeError("not again")
        return noisy(trial)

    study = _tune(fragile, replicate=2)
    assert len(study.trials) == 40
    confirmed = [t for t in study.ranking if t.estimates and next(iter(t.estimates.values())).by == "repeats"]
    assert 0 < len(confirmed) < 5
    assert all(t.params["x"] <= 0.3 for t in confirmed)
    assert study.best in confirmed


def test_several_objectives_and_constraints_go_by_means():
    study = lt.tune(
        two,
        SPACE,
        objectives={"f": "min", "g": "min"},
        constraints={"f": "<= 0.8"},
        algorithm="random",
        trials=30,
        replicate=3,
        progress=False,
    )
    assert len(study.trials) == 45
    assert {t.number for t in study.front} <= set(study.repeats)
    means = np.array([[t.estimates["f"].mean, t.estimates["g"].mean] for t in study.front])
    assert lt.pareto.front(means).all()
    assert (means[:, 0] <= 0.8).all()
    assert study.best in study.front


def test_estimates_are_shown(tmp_path, capsys):
    study = _tune(replicate=2, progress=True)
    assert f"best by its repeats: trial {study.best.number}" in capsys.readouterr().out
    content = study.to_json()
    assert content["estimates"]["loss"]["count"] == 2
    assert json.loads(json.dumps(content))
    page = study.report(tmp_path / "r.html").read_text()
    assert "loss, without noise" in page
    assert "by 2 repeats" in page
    frame = study.to_frame()
    assert frame["repeats"].notna().sum() == 10
    means = frame.loc[sorted(study.repeats), "loss mean"]
    assert means.tolist() == [np.mean([t.metrics["loss"] for t in study.repeats[n]]) for n in sorted(study.repeats)]


@pytest.mark.parametrize("wrong", [1, -1, 2.5, True, "3"])
def test_a_wrong_number_of_repeats_is_refused(wrong):
    with pytest.raises(UsageError, match="replicate"):
        _tune(replicate=wrong)


@pytest.mark.parametrize("algorithm", [n for n in lt.search.names() if n != "grid"])
def test_every_search_goes_on_after_repeats(algorithm, tmp_path):
    how = {"store": tmp_path / "s.db", "name": "a", "algorithm": algorithm, "replicate": 2}
    _tune(**{**how, "trials": 12})
    study = _tune(**{**how, "trials": 20})
    again = {t.number for some in study.repeats.values() for t in some}
    searched = [tuple(t.params.items()) for t in study.trials if t.number not in again]
    assert len(searched) == len(set(searched)) == 20
    assert study.replay() == []


def test_an_interrupted_repeat_is_never_stopped(tmp_path):
    dead = []

    def curved(trial):
        if trial.number == 31 and not dead:
            dead.append(True)
            raise KeyboardInterrupt
        for step in (1, 2, 3):
            trial.report(step, loss=_value(trial) + (9.0 if trial.number >= 30 else 0.0))
        return noisy(trial)

    how = {"store": tmp_path / "s.db", "name": "a", "replicate": 2, "stop": "median"}
    with pytest.raises(KeyboardInterrupt):
        _tune(curved, **how)
    study = _tune(curved, **how)
    assert len(study.trials) == 40
    assert [len(study.trials[n].reports) for n in range(30, 40)] == [3] * 10
    assert {t.status.value for t in study.trials[30:]} == {"complete"}
