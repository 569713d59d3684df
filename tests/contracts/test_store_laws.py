"""Laws that every store obeys."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import luthier as lt
from luthier.cli import main
from luthier.errors import CheckError, StoreError
from luthier.store import Header, Lease, View, kit, open_store
from luthier.store.memory import Memory
from luthier.trial import Leg, Report, Status, Trial

AWKWARD = kit.AWKWARD


@dataclass
class Server:
    url: str
    restart: Callable[[], object]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of our own on a free port."""
    pytest.importorskip("psycopg", reason="PostgreSQL is not tested: the package psycopg is not installed")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).parent for found in [shutil.which("initdb")] if found
    ]
    if not binaries:
        pytest.skip("PostgreSQL is not tested: no server is installed")
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="luthier-pg-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        if user:
            shutil.chown(folder, "postgres")
        init = [binaries[-1] / "initdb", "-D", f"{folder}/data", "-U", "luthier", "-A", "trust", "-E", "UTF8"]
        subprocess.run(init, check=True, capture_output=True, cwd=folder, **user)
        free.close()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = [binaries[-1] / "pg_ctl", "-D", f"{folder}/data", "-w"]
        start = [*control, "-l", f"{folder}/log", "-o", options, "start"]
        subprocess.run(start, check=True, capture_output=True, cwd=folder, **user)
        try:
            again = [*control, "-l", f"{folder}/log", "-o", options, "-m", "immediate", "restart"]
            url = f"postgresql://luthier:hunter2@127.0.0.1:{port}/postgres"
            yield Server(url, lambda: subprocess.run(again, check=True, capture_output=True, cwd=folder, **user))
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], capture_output=True, cwd=folder, **user)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request, tmp_path):
    if request.param == "memory":
        made = Memory()
    elif request.param == "sqlite":
        made = open_store(tmp_path / "a folder" / "studies.db")
    else:
        made = open_store(request.getfixturevalue("postgres").url)
        for state in made.studies():
            made.delete(state.header.name)
    yield made
    made.close()


def header(name: str = "study") -> Header:
    return Header(name, {"parameters": {}, "where": 0}, {"directions": {"loss": "min"}}, {"seed": 3}, 12.5)


def begun(store, name: str = "study", token: str = "me") -> None:
    assert store.create(header(name))
    store.claim(name, token, 60.0)


@pytest.mark.parametrize("law", kit.LAWS, ids=lambda law: law.__name__)
def test_the_kit_for_stores_of_ones_own_holds_for_ours(store, law):
    law(store)


class Forgetful(Memory):
    """Loses the last report."""

    def finish(self, name, token, trial):
        super().finish(name, token, replace(trial, reports=trial.reports[:-1]))


class Open(Memory):
    """Lets anybody drive."""

    def claim(self, name, token, patience):
        self._studies[name].token = token


class Short(Memory):
    """Cuts names."""

    def create(self, header):
        return super().create(replace(header, name=header.name[:99]))


@pytest.mark.parametrize("broken", [Forgetful, Open, Short])
def test_the_kit_finds_a_broken_store(broken):
    with pytest.raises((CheckError, KeyError)):
        kit.check(broken)


def test_a_trial_comes_back_as_it_was_written(store):
    begun(store)
    params = {"x": 0.1, "opt": None, "deep": True, "n": 10**12, "s": "it's 🎻"}
    trial = Trial(0, params, started=1.25)
    assert store.start("study", "me", trial, View()) == 1
    for step, value in ((0, 0.5), (3, math.nan), (7, -math.inf)):
        trial = trial.with_report(Report(step, {"loss": value, "acc": 1 / 3}))
        store.report("study", "me", 0, Report(step, {"loss": value, "acc": 1 / 3}))
    ended = trial.ending(Status.FAILED, 2.5, cause="it's \x00 over")
    store.finish("study", "me", ended)
    back = store.trials("study")[0]
    assert repr(back.reports) == repr(ended.reports)
    assert (back.params, back.status, back.started, back.ended) == (params, Status.FAILED, 1.25, 2.5)
    assert back.cause.startswith("it's ")
    assert back.metrics["acc"] == 1 / 3


def test_a_second_report_for_a_step_replaces_the_first(store):
    begun(store)
    store.start("study", "me", Trial(0, {}), View())
    store.report("study", "me", 0, Report(1, {"loss": 1.0}))
    store.report("study", "me", 0, Report(1, {"loss": 2.0}))
    assert store.trials("study")[0].reports == (Report(1, {"loss": 2.0}),)


def test_starting_again_forgets_the_reports_and_counts(store):
    begun(store)
    assert store.start("study", "me", Trial(0, {"x": 1}), View()) == 1
    store.report("study", "me", 0, Report(1, {"loss": 1.0}))
    assert store.start("study", "me", Trial(0, {"x": 1}, started=9.0), View()) == 2
    assert store.trials("study") == [Trial(0, {"x": 1}, started=9.0)]


def test_a_promoted_trial_keeps_what_it_told_before_its_pause(store):
    begun(store)
    trial = Trial(0, {"x": 1}, started=2.0, legs=(Leg(0),))
    for _ in range(3):  # its driver died twice
        starts = store.start("study", "me", trial, View())
    assert starts == 3
    for step in (1, 2):
        trial = trial.with_report(Report(step, {"loss": 1.0 / step}))
        store.report("study", "me", 0, trial.reports[-1])
    paused = replace(trial, legs=(Leg(0, 2),)).ending(Status.PAUSED, 3.5, cause="waits")
    store.finish("study", "me", paused)
    assert store.trials("study") == [paused]
    again = replace(paused, status=Status.RUNNING, legs=(Leg(0, 2), Leg(7)))
    assert store.start("study", "me", again, View()) == 1  # a pause proves that it does no harm
    store.report("study", "me", 0, Report(3, {"loss": 0.2}))
    assert store.start("study", "me", again, View()) == 2
    (back,) = store.trials("study")
    assert (back.reports, back.legs, back.floor) == (paused.reports, again.legs, 2)
    assert (back.started, back.ended, back.status) == (2.0, 3.5, Status.RUNNING)


def test_a_live_driver_keeps_others_out_and_is_named(store):
    begun(store)
    mine = Lease("me")
    with pytest.raises(StoreError, match=f"process {mine.pid} on {mine.host}"):
        store.claim("study", "you", 60.0)
    assert str(mine.pid) in store.state("study").driver
    store.release("study", "you")  # somebody else's lease is not given back
    with pytest.raises(StoreError):
        store.claim("study", "you", 60.0)
    store.release("study", "me")
    assert store.state("study").driver is None
    store.claim("study", "you", 60.0)


def test_a_driver_that_lost_its_lease_writes_no_more(store):
    begun(store)
    store.start("study", "me", Trial(0, {}), View())
    store.release("study", "me")
    store.claim("study", "you", 60.0)
    done = Trial(0, {}).ending(Status.COMPLETE, 1.0, {"loss": 1.0})
    acts = [
        lambda: store.start("study", "me", Trial(1, {}), View()),
        lambda: store.report("study", "me", 0, Report(1, {"loss": 1.0})),
        lambda: store.finish("study", "me", done),
        lambda: store.beat("study", "me", 1.0),
    ]
    for act in acts:
        with pytest.raises(StoreError, match="lease"):
            act()
    assert store.trials("study") == [Trial(0, {})]


def test_what_a_proposal_saw_is_kept(store):
    begun(store)
    views = {0: View("user"), 1: View("algorithm", (0,), 2), 2: View("algorithm", (0, 1))}
    for number, view in views.items():
        store.start("study", "me", Trial(number, {}), view)
    store.start("study", "me", Trial(1, {}), View())  # begun again: what it was made from stays
    assert store.views("study") == views


def test_time_spent_is_kept(store):
    begun(store)
    store.beat("study", "me", 12.25)
    assert store.state("study").spent == 12.25


def test_deleting_removes_one_study_only(store):
    begun(store, "one")
    begun(store, "two")
    for name in ("one", "two"):
        store.start(name, "me", Trial(0, {"of": name}), View())
        store.report(name, "me", 0, Report(1, {"loss": 1.0}))
    store.delete("one")
    assert store.state("one") is None
    assert store.trials("two")[0].reports == (Report(1, {"loss": 1.0}),)
    begun(store, "one")
    assert store.trials("one") == []


# what only files can get wrong


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "studies.db"
    made = open_store(path)
    begun(made)
    made.close()
    return path


def edit(path, statement: str, *values) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    connection.close()


def test_a_newer_version_is_refused(file):
    edit(file, "UPDATE luthier_schema SET version = 99")
    with pytest.raises(StoreError, match=r"newer version(.|\n)*schema 99(.|\n)*upgrade"):
        open_store(file)


@pytest.mark.parametrize("content", [b"not a database at all" * 200, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_folder_a_missing_file_and_bad_urls_are_refused(tmp_path):
    with pytest.raises(StoreError, match="folder"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match="no store"):
        open_store(tmp_path / "none.db", create=False)
    for url in ("frobnicate://user:hunter2@host/db", "postgresql://u:hunter2@127.0.0.1:1/db?password=hunter2", "a://["):
        with pytest.raises(StoreError) as told:
            open_store(url)
        assert "hunter2" not in str(told.value)
        assert told.value.__cause__ is None or "hunter2" not in str(told.value.__cause__)


@pytest.mark.parametrize(
    ("host", "pid", "born", "silence", "lives"),
    [
        ("here", "mine", "mine", 1e9, True),  # the process is there, however long it was silent
        ("here", "mine", 1.0, 0.0, False),  # the number was given to another process since
        ("here", 2**22 + 1, 1.0, 0.0, False),  # no such process
        ("elsewhere", 1, 1.0, 0.0, True),  # a fresh sign of life
        ("elsewhere", 1, 1.0, 61.0, False),
    ],
)
def test_a_dead_drivers_lease_expires(file, host, pid, born, silence, lives):
    me = Lease("them")
    values = (
        "them",
        me.host if host == "here" else host,
        me.pid if pid == "mine" else pid,
        me.born if born == "mine" else born,
        time.time() - silence,
    )
    edit(file, "UPDATE luthier_studies SET token = ?, host = ?, pid = ?, born = ?, beat = ?", *values)
    store = open_store(file)
    assert (store.state("study").driver is not None) == lives
    if lives:
        with pytest.raises(StoreError, match="being driven"):
            store.claim("study", "you", 60.0)
    else:
        store.claim("study", "you", 60.0)
    store.close()


DAMAGE = [
    "UPDATE luthier_trials SET params = '{'",
    "UPDATE luthier_trials SET status = 'glorious'",
    "UPDATE luthier_trials SET metrics = '[1]'",
    "UPDATE luthier_studies SET header = '{}'",
    "UPDATE luthier_studies SET header = 'null'",
]


@pytest.mark.parametrize("statement", DAMAGE)
def test_damaged_rows_are_an_error_of_the_store(file, statement):
    made = open_store(file)
    made.start("study", "me", Trial(0, {"x": 1}), View())
    edit(file, statement)
    with pytest.raises(StoreError, match="damaged"):
        made.trials("study") if "trials" in statement else made.studies()
    made.close()


@pytest.mark.parametrize("name", ["a?b.db", "a#b%20.db", "it's 🎻.db", "-x.db"])
def test_any_file_name_works(tmp_path, name):
    made = open_store(tmp_path / name)
    begun(made)
    made.close()
    assert (tmp_path / name).exists()


def test_hostile_rows_are_data(file):
    bad = json.dumps({"__reduce__": ["os.system", ["touch /tmp/owned"]], "x": "<script>"})
    made = open_store(file)
    made.release("study", "me")
    made.claim("study", "me2", 60.0)
    made.start("study", "me2", Trial(0, {}), View())
    edit(file, "UPDATE luthier_trials SET params = ?", bad)
    assert made.trials("study")[0].params == json.loads(bad)
    made.close()


FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("fixture", sorted(FIXTURES.glob("schema_*.db")), ids=lambda path: path.stem)
def test_stores_of_every_released_schema_open_and_go_on(tmp_path, fixture):
    path = shutil.copy(fixture, tmp_path / "old.db")
    old = lt.load_study(path)
    assert [t.status.value[0] for t in old.trials] == list("ccfscs")
    assert old.trials[0].reports[1].metrics == {"loss": math.inf}
    assert old.trials[2].cause.startswith("ValueError: a recorded failure")
    assert set(old.views) == set(range(6))
    if fixture.stem != "schema_1":
        assert [t.resting for t in old.trials] == [False, False, False, True, False, False]
        assert old.trials[1].legs == (Leg(1, 1), Leg(6))
    space = lt.Space(x=lt.Float(-1, 1), kind=lt.Choice([int, None, "a"]))
    options = {"minimize": "loss", "constraints": {"loss": "<= 10"}, "algorithm": "random", "progress": False}
    study = lt.tune(lambda t: t["x"] ** 2, space, trials=8, store=path, name=old.name, **options)
    assert len(study.trials) == 8
    assert study.replay() == []


def test_there_is_a_fixture_for_the_present_schema():
    from luthier.store._schema import VERSION

    assert (FIXTURES / f"schema_{VERSION}.db").exists()


@pytest.mark.slow
def test_a_server_that_restarts_is_waited_for(postgres):
    """Killed without ceremony in the middle of a study, twice."""

    def objective(trial):
        time.sleep(0.005)
        trial.report(1, loss=trial["x"])
        return trial["x"]

    def trouble():
        for _ in range(2):
            time.sleep(0.4)
            postgres.restart()

    thread = threading.Thread(target=trouble)
    thread.start()
    options = {"minimize": "loss", "algorithm": "random", "progress": False, "store": postgres.url, "name": "fire"}
    try:
        study = lt.tune(objective, lt.Space(x=lt.Float(0, 1)), trials=300, **options)
    finally:
        thread.join()
    stored = lt.load_study(postgres.url, "fire")
    assert [t.number for t in stored.trials] == list(range(300))
    assert stored.trials == study.trials


def test_secrets_of_a_url_are_never_told(postgres, tmp_path, capfd, monkeypatch):
    """Neither by what works nor by what fails: messages, tracebacks, reports, the display, the command line."""
    monkeypatch.chdir(tmp_path)
    opened = open_store(postgres.url)
    for state in opened.studies():
        opened.delete(state.header.name)
    begun(opened, "not a real study")
    opened.close()
    script = tmp_path / "task.py"
    script.write_text(
        "import luthier as lt\nspace = lt.Space(x=lt.Float(0, 1))\nminimize = 'loss'\nobjective = lambda t: t['x']\n"
        f"store = {postgres.url!r}\n"
    )
    commands = [
        ["tune", str(script), "--trials", "3", "--algorithm", "random", "--out", "out", "--name", "secret"],
        ["studies", postgres.url],
        ["studies", postgres.url, "secret"],
        ["report", postgres.url],
        ["report", postgres.url, "secret"],
        ["report", postgres.url, "nobody"],
        ["tune", str(script), "--store", postgres.url.replace("/postgres", "/nowhere"), "--trials", "1"],
        ["studies", postgres.url + "?sslmode=hunter2"],
        ["studies", postgres.url + "?hunter2=hunter2"],
        ["studies", postgres.url.replace("@127.0.0.1", "@nowhere.invalid")],
        ["studies", postgres.url.replace("postgresql://", "postgresql+nothing://")],
        ["studies", "postgresql://luthier:hunter2"],
        ["studies", "postgresql://luthier:hunter2@[::1"],
    ]
    codes = []
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main(command)
        codes.append(end.value.code)
    assert codes[:3] == [0, 0, 0]
    assert all(codes[5:])
    told = capfd.readouterr()
    assert "secret" in told.out
    assert "damaged" in told.out
    assert "hunter2" not in told.out + told.err
    for page in (tmp_path / "out").iterdir():
        assert "hunter2" not in page.read_text()
    for url in [command[1] for command in commands[6:] if command[0] == "studies"]:
        with pytest.raises(lt.LuthierError) as error:
            lt.load_study(url)
        assert "hunter2" not in "".join(traceback.format_exception(error.value))
    with postgres_rows(postgres.url) as text:
        assert "hunter2" not in text


@contextlib.contextmanager
def postgres_rows(url: str) -> Iterator[str]:
    import psycopg

    with psycopg.connect(url) as connection:
        yield str(connection.execute("SELECT * FROM luthier_studies").fetchall())


@pytest.mark.parametrize("name", AWKWARD)
def test_studies_of_any_name_run_report_and_travel(tmp_path, name, monkeypatch):
    """From the first trial to the page: no folder is left, no name is cut short, nothing is run."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "inner" / "s.db"

    def objective(trial):
        Path(trial.checkpoint, "state").write_text("kept")
        return trial["x"]

    options = {"minimize": "loss", "algorithm": "random", "progress": False, "trials": 6}
    study = lt.tune(objective, lt.Space(x=lt.Float(0, 1)), store=store, name=name, **options)
    assert study.name == lt.load_study(store, name).name == name
    copied = lt.study.import_study(study.export(tmp_path / "f.jsonl"), tmp_path / "t.db")
    assert copied.name == name
    with pytest.raises(SystemExit) as end:
        main(["report", str(store), name])
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        main(["studies", str(store)])
    assert end.value.code == 0
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["f.jsonl", "inner", pages[0].name, "t.db"])
    assert sorted(p.name for p in store.parent.iterdir()) == ["s.db", "s.db.checkpoints"]
