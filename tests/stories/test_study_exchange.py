"""Studies as files, copied between stores, and replayed."""

from __future__ import annotations

import json
import math

import pytest

import luthier as lt
from luthier import search
from luthier.errors import StoreError, UsageError
from luthier.study import copy_study, import_study

SPACE = lt.Space(
    x=lt.Float(-1, 1), n=lt.Int(1, 9), kind=lt.Choice([int, None, "a"]), where=[lambda p: p["x"] * p["n"] < 5]
)


def objective(trial):
    for step in range(3):
        trial.report(step, loss=math.inf if trial.number == 3 and step == 1 else trial["x"] ** 2, note=step)
    if trial.number == 4:
        raise ValueError("no\nnewline 🎻")
    return trial["x"] ** 2 + trial["n"]


def tuned(**options) -> lt.Study:
    defaults = {"minimize": "loss", "algorithm": "random", "trials": 14, "progress": False}
    return lt.tune(objective, SPACE, **{**defaults, **options})


@pytest.fixture
def study(tmp_path) -> lt.Study:
    first = [{"x": 0.5, "n": 2, "kind": None}]
    return tuned(store=tmp_path / "s.db", name="one", workers=2, stop=lt.stop.Median(), first=first)


def test_a_study_survives_a_file_and_a_copy(tmp_path, study):
    stored = lt.load_study(tmp_path / "s.db", "one")
    path = study.export(tmp_path / "out" / "one.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["number"] for row in lines[1:]] == list(range(14))
    for other in (
        import_study(path, tmp_path / "t.db"),
        import_study(path, tmp_path / "s.db", "two"),
        copy_study(tmp_path / "s.db", "one", tmp_path / "u.db"),
        copy_study(tmp_path / "s.db", "one", tmp_path / "s.db", "three"),
    ):
        assert repr(other.trials) == repr(stored.trials)
        assert other.views == stored.views
        assert other.best == stored.best
    assert len(tuned(store=tmp_path / "t.db", name="one", trials=16).trials) == 16  # and it goes on there
    for again in (
        lambda: import_study(path, tmp_path / "t.db"),
        lambda: copy_study(tmp_path / "s.db", "one", tmp_path / "s.db"),
    ):
        with pytest.raises(UsageError, match="already"):
            again()


BROKEN = [
    ("", "is not a study"),
    ("[1, 2]\n", "is not a study"),
    ('{"a": 1}\n', "is not a study"),
    ('{"luthier_study": 99}\n', "newer version"),
    ('{"luthier_study": 1, "name": "n"}\n', "first line"),
]


@pytest.mark.parametrize(("text", "sign"), BROKEN)
def test_a_file_of_something_else_is_refused(tmp_path, text, sign):
    (tmp_path / "f").write_text(text)
    with pytest.raises(StoreError, match=sign):
        import_study(tmp_path / "f", tmp_path / "s.db")


@pytest.mark.parametrize(
    "change", [lambda r: r.pop("status"), lambda r: r.update(status="glorious"), lambda r: r.update(metrics={"a": []})]
)
def test_a_damaged_line_is_named_and_nothing_is_stored(tmp_path, study, change):
    path = study.export(tmp_path / "f.jsonl")
    lines = path.read_text().splitlines()
    row = json.loads(lines[4])
    change(row)
    lines[4] = json.dumps(row)
    path.write_text("\n".join(lines))
    with pytest.raises(StoreError, match="line 5"):
        import_study(path, tmp_path / "t.db")
    with pytest.raises(StoreError, match="no store"):
        lt.load_study(tmp_path / "t.db")


@pytest.mark.parametrize("algorithm", search.names())
@pytest.mark.parametrize("options", [{"workers": 2}, {"deterministic": 3, "stop": "median"}])
def test_replay_gives_every_proposal_again(tmp_path, algorithm, options):
    study = tuned(algorithm=algorithm, trials=10, store=tmp_path / "s.db", name="n", **options)
    assert study.replay() == []
    assert lt.load_study(tmp_path / "s.db").replay(space=SPACE) == []


def test_replay_finds_what_was_changed(tmp_path):
    tuned(store=tmp_path / "s.db", name="n")
    tuned(store=tmp_path / "s.db", name="n", seed=5, trials=17)
    study = lt.load_study(tmp_path / "s.db")
    assert [d.number for d in study.replay(space=SPACE)] == [14, 15, 16]
    assert "trial 14: ran with" in str(study.replay(space=SPACE)[0])
    assert len(study.replay(algorithm="sobol", space=SPACE)) == 17
    with pytest.raises(UsageError, match="predicates"):
        study.replay()


def test_replay_after_a_resume_with_configurations_of_the_users_own(tmp_path, study):
    again = tuned(store=tmp_path / "s.db", name="one", trials=20, first=[{"x": 0.1, "n": 1, "kind": "a"}])
    assert again.trials[14].params == {"x": 0.1, "n": 1, "kind": "a"}
    assert again.replay() == []
