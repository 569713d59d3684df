"""A study warmed up by others: resumed, replayed, exported and read again, its proposals stay the same."""

from __future__ import annotations

import pytest

import luthier as lt
from luthier.study import import_study


def space() -> lt.Space:
    return lt.Space(
        lr=lt.Float(1e-5, 1.0, log=True),
        order=lt.Permutation(["scale", "select", "reduce"]),
        features=lt.Subset(range(6), min=1, max=4),
        where=lambda p: len(p["features"]) < 4 or p["lr"] < 0.5,
    )


def objective(trial) -> float:
    late = trial["order"].index("reduce")
    return abs(trial["lr"] - 0.01) + 0.2 * (2 - late) + 0.1 * (0 not in trial["features"])


def tune(store, name, trials, seed=0, **more):
    return lt.tune(
        objective, space(), minimize="loss", trials=trials, store=store, name=name, seed=seed, progress=False, **more
    )


@pytest.mark.parametrize("algorithm", ["tpe", "bayes"])
def test_a_warm_study_is_resumed_and_replayed_exactly(tmp_path, algorithm):
    place = tmp_path / "studies.db"
    source = tune(place, "source", 12, seed=5, algorithm="random")
    whole = tune(place, "whole", 14, algorithm=algorithm, warm_start=source)
    assert whole.trials[0].params == source.best.params
    tune(place, "parts", 6, algorithm=algorithm, warm_start=[source])
    longer = tune(place, "source", 20, seed=5, algorithm="random")
    parts = tune(place, "parts", 14, algorithm=algorithm, warm_start=longer)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]
    cold = tune(place, "cold", 14, algorithm=algorithm)
    assert [t.params for t in cold.trials] != [t.params for t in whole.trials]
    forgot = tune(place, "parts", 16, algorithm=algorithm)
    assert forgot.trials[:14] == parts.trials
    for study in (whole, forgot):
        assert lt.load_study(place, study.name).replay(algorithm=algorithm, space=space()) == []


def test_structures_survive_every_form_that_a_study_takes(tmp_path):
    place = tmp_path / "studies.db"
    study = tune(place, "first", 8, algorithm="tpe")
    assert all(isinstance(t.params["order"], tuple) for t in study.trials)
    read = lt.load_study(place, "first")
    assert [t.params for t in read.trials] == [t.params for t in study.trials]
    study.export(tmp_path / "study.jsonl")
    taken = import_study(tmp_path / "study.jsonl", tmp_path / "other.db")
    assert [t.params for t in taken.trials] == [t.params for t in study.trials]
    frame = study.to_frame()
    assert list(frame["order"]) == [t.params["order"] for t in study.trials]
    assert "reduce" in study.report(tmp_path / "page.html").read_text()
    shares = study.importance()
    assert set(shares) == {"lr", "order", "features"}
    assert all(0.0 <= share <= 1.0 for share in shares.values())


def test_none_is_an_option_like_any_other():
    from luthier.search._warm import translate

    assert translate(lt.Space(opt=lt.Choice(["a", "b", None])), {"opt": None}) == {"opt": None}


@pytest.mark.parametrize("algorithm", ["tpe", "bayes"])
def test_a_study_of_which_nothing_is_allowed_is_refused(algorithm):
    source = lt.tune(lambda t: t["x"], {"x": lt.Float(0, 1)}, minimize="loss", trials=3, progress=False)
    narrow = lt.Space(x=lt.Float(0, 1), where=lambda p: all(p["x"] != t.params["x"] for t in source.trials))
    with pytest.raises(lt.errors.UsageError, match="nothing of it is allowed here"):
        lt.tune(
            lambda t: t["x"],
            narrow,
            minimize="loss",
            trials=12,
            algorithm=algorithm,
            warm_start=source,
            progress=False,
        )
