"""Where trials keep their checkpoints, and that they belong to one study only."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

import luthier as lt
from luthier.cli import main
from luthier.errors import StoreError, UsageError
from luthier.store import kit
from luthier.store.memory import Memory
from luthier.store.sql import Sql
from luthier.study import exchange
from luthier.study.ledger import Ledger
from luthier.trial import Report, Status, Trial

SPACE = lt.Space(x=lt.Float(0, 1))


def kept(trial) -> dict:
    """Counts how often this trial's folder was written to."""
    file = Path(trial.checkpoint, "count")
    count = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(count))
    return {"loss": trial["x"], "count": count}


def tune(objective=kept, **how):
    given = {"minimize": "loss", "algorithm": "random", "trials": 3, "name": "a", "progress": False, **how}
    return lt.tune(objective, SPACE, **given)


def counts(study) -> list[float]:
    return [t.metrics["count"] for t in study.trials]


def test_a_new_study_of_a_deleted_ones_name_finds_no_old_checkpoints(tmp_path):
    tune(store=tmp_path / "s.db")
    store = Sql(tmp_path / "s.db")
    store.delete("a")
    store.close()
    assert counts(tune(store=tmp_path / "s.db")) == [1, 1, 1]


def test_an_interrupted_trial_keeps_its_checkpoint(tmp_path):
    dead = []

    def breaks(trial):
        found = kept(trial)
        if trial.number == 1 and not dead:
            dead.append(True)
            raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        tune(breaks, store=tmp_path / "s.db")
    assert counts(tune(breaks, store=tmp_path / "s.db")) == [1, 2, 1]


def test_a_store_given_as_an_object_keeps_checkpoints_where_its_path_does(tmp_path):
    store = Sql(tmp_path / "s.db")
    study = tune(store=store)
    assert study.folder.parent == tmp_path / "s.db.checkpoints"
    assert Path(study.folder, "0", "count").exists()
    assert tune(store=tmp_path / "s.db").folder == study.folder == lt.load_study(store, "a").folder
    store.close()


def test_another_folder_for_checkpoints_is_refused(tmp_path):
    how = {"store": tmp_path / "s.db"}
    tune(**how, checkpoints=tmp_path / "A")
    assert tune(**how, checkpoints=tmp_path / "A").folder.parent == tmp_path / "A"
    assert tune(**how).folder.parent == tmp_path / "A"
    with pytest.raises(UsageError, match="keeps its checkpoints elsewhere"):
        tune(**how, checkpoints=tmp_path / "B")


def test_a_damaged_description_is_told_clearly_when_a_study_goes_on(tmp_path):
    tune(store=tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db") as base:
        ((text,),) = base.execute("select header from luthier_studies").fetchall()
        header = {**json.loads(text), "objectives": {}}
        base.execute("update luthier_studies set header = ?", (json.dumps(header),))
    with pytest.raises(StoreError, match="damaged"):
        tune(store=tmp_path / "s.db")


def test_fresh_removes_the_studys_folder_and_files_may_say_any_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "import luthier as lt\nspace = lt.Space(x=lt.Float(0, 1))\nminimize = 'loss'\ntrials = 3\n"
    text += "def objective(trial):\n    open(trial.checkpoint + '/old', 'w').close()\n    return trial['x']\n"
    text += "source = lt.tune(lambda t: (t['x'] - 0.25) ** 2, space, minimize='loss', trials=9, progress=False)\n"
    text += "warm_start = source\nalgorithm = 'tpe'\n"
    Path("task.py").write_text(text)

    def run(*words: str) -> None:
        with pytest.raises(SystemExit) as end:
            main(["tune", "task.py", "--quiet", *words])
        assert end.value.code == 0

    run()
    study = lt.load_study("runs/task.db")
    assert study.header.space["experience"]
    assert len(list(study.folder.iterdir())) == 3
    run("--fresh", "--trials", "1")
    assert [p.name for p in study.folder.iterdir()] == ["0"]


def test_the_standing_follows_a_trial_that_goes_on():
    def ended(number: int, loss: float, status: Status) -> Trial:
        return Trial(number, {"x": 0.5}, status, {"loss": loss}, (Report(1, {"loss": loss}),), None, 0.0, 1.0)

    ledger = Ledger([ended(0, 1.0, Status.COMPLETE), ended(1, 2.0, Status.STOPPED)])
    version, finished = ledger.version, ledger.finished
    ledger.put(replace(ledger[1], status=Status.COMPLETE, metrics={"loss": 0.5}))
    assert ledger.finished == finished
    assert ledger.version > version
    study = tune(lambda t: t["x"], trials=2)
    assert study.best.metrics == study.best_measured.metrics
    better = {"loss": -1.0}
    study.ledger.put(replace(study.ranking[-1], metrics=better))
    assert study.best.metrics == better


def test_two_exports_to_one_file_do_not_share_a_rough_copy(tmp_path):
    study = tune(lambda t: t["x"])
    entries = [(replace(t, params=study.space.dump(t.params)), exchange.View()) for t in study.trials]
    path = tmp_path / "f.jsonl"

    def slow():
        for entry in entries:
            study.export(path)
            yield entry

    exchange.write(path, study.header, slow())
    assert len(exchange.read(path)[1]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["f.jsonl"]


def test_the_kit_leaves_nothing_in_a_store():
    store = Memory()
    kit.check(lambda: store)
    assert store.studies() == []


def test_studies_are_listed_without_fitting_a_model(tmp_path, monkeypatch, capsys):
    study = tune(lambda t: t["x"], store=tmp_path / "s.db", trials=20)

    def dear(*_):
        raise AssertionError("a model was fitted for a list")

    monkeypatch.setattr("luthier.study.view.standing", dear)
    with pytest.raises(SystemExit) as end:
        main(["studies", str(tmp_path / "s.db")])
    assert end.value.code == 0
    assert f"{study.best_measured.metrics['loss']:.4g}"[:5] in capsys.readouterr().out
