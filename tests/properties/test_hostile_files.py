"""Files made by others are data: whatever is in them, there is an answer or an error of ours, and nothing is run."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import luthier as lt
from luthier.cli.report import _page
from luthier.errors import LuthierError
from luthier.store import open_store
from luthier.study import import_study

FIXTURE = Path(__file__).parents[1] / "fixtures" / "schema_2.db"
QUICK = settings(  # what fails is a file: shrinking it takes longer than looking at it
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.binary(max_size=20), st.text(), JSON.map(json.dumps))
BYTES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=40)
TEXTS = {
    "luthier_studies": ("header", "host", "pid", "born", "beat", "token"),
    "luthier_trials": (
        "status",
        "params",
        "pending",
        "metrics",
        "cause",
        "started",
        "ended",
        "legs",
        "level",
        "number",
    ),
    "luthier_reports": ("metrics", "step"),
}
COLUMNS = [(table, column) for table, columns in TEXTS.items() for column in columns]


def damaged(content: bytes, changes: list[tuple[float, int]]) -> bytes:
    out = bytearray(content)
    for place, value in changes:
        out[int(place * len(out))] = value
    return bytes(out)


@contextlib.contextmanager
def only_our_errors() -> Iterator[None]:
    try:
        yield
    except LuthierError as error:
        if not str(error):
            raise


@only_our_errors()
def used(path: Path) -> None:
    """Everything that reads a store."""
    store = open_store(path, create=False)
    try:
        for state in store.studies():
            store.views(state.header.name)
            store.trials(state.header.name)
    finally:
        store.close()
    study = lt.load_study(path)
    study.to_json()
    study.export(path.with_suffix(".jsonl"))


@QUICK
@given(BYTES)
def test_a_database_with_damaged_bytes(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("hostile") / "s.db"
    path.write_bytes(damaged(FIXTURE.read_bytes(), changes))
    used(path)


@QUICK
@given(st.lists(st.tuples(st.sampled_from(COLUMNS), VALUES), min_size=1, max_size=3))
def test_a_database_with_hostile_rows(tmp_path_factory, changes):
    path = Path(shutil.copy(FIXTURE, tmp_path_factory.mktemp("hostile") / "s.db"))
    connection = sqlite3.connect(path)
    for (table, column), value in changes:
        with contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError, OverflowError):
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
    connection.commit()
    connection.close()
    used(path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> list[str]:
    path = lt.load_study(shutil.copy(FIXTURE, tmp_path_factory.mktemp("whole") / "s.db")).export(
        tmp_path_factory.mktemp("whole") / "s.jsonl"
    )
    return path.read_text().splitlines()


@QUICK
@given(st.data())
def test_a_file_of_lines_with_hostile_values(tmp_path_factory, exported, data):
    folder = tmp_path_factory.mktemp("hostile")
    lines = list(exported)
    which = data.draw(st.integers(0, len(lines) - 1))
    row = json.loads(lines[which])
    where = row
    names = list(where)
    name = data.draw(st.sampled_from(names))
    if isinstance(where[name], dict) and where[name] and data.draw(st.booleans()):
        where = where[name]
        name = data.draw(st.sampled_from(list(where)))
    where[name] = data.draw(JSON)
    lines[which] = json.dumps(row)
    (folder / "s.jsonl").write_text("\n".join(lines))
    with only_our_errors():
        import_study(folder / "s.jsonl", folder / "t.db")
        used(folder / "t.db")


@QUICK
@given(BYTES, st.booleans())
def test_a_file_of_lines_with_damaged_bytes(tmp_path_factory, exported, changes, cut):
    folder = tmp_path_factory.mktemp("hostile")
    content = damaged("\n".join(exported).encode(), changes)
    (folder / "s.jsonl").write_bytes(content[: len(content) // 2] if cut else content)
    with only_our_errors():
        import_study(folder / "s.jsonl", folder / "t.db")


@QUICK
@given(JSON | st.dictionaries(st.sampled_from(["version", "front", "dense", "best", "trials", "note", "metric"]), JSON))
def test_the_description_of_a_run(tmp_path_factory, content):
    place = tmp_path_factory.mktemp("hostile") / "run.json"
    place.write_text(json.dumps(content))
    with only_our_errors():
        _page(place)


def test_a_run_of_a_newer_version_is_explained(tmp_path):
    from luthier.cli import group

    (tmp_path / "run.json").write_text('{"version": 99}')
    done = CliRunner().invoke(group, ["report", str(tmp_path)])
    assert "newer version" in str(done.exception)
    (tmp_path / "run.json").write_text("[" * 100_000)
    done = CliRunner().invoke(group, ["report", str(tmp_path)])
    assert "damaged" in str(done.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json"]


class Owned:
    """What an attacker would like to be unpickled."""

    def __reduce__(self):
        import os

        return os.mkdir, ("owned",)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> bytes:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    path = tmp_path_factory.mktemp("whole") / "m.luthier"
    lt.save(lt.prune_neurons(net, (torch.zeros(2, 4),), ratio=0.5), path)
    return path.read_bytes()


@settings(QUICK, max_examples=40)
@given(BYTES)
def test_a_model_file_with_damaged_bytes(tmp_path_factory, bundle, changes):
    path = tmp_path_factory.mktemp("hostile") / "m.luthier"
    path.write_bytes(damaged(bundle, changes))
    with only_our_errors():
        lt.load(path)


def test_a_pickle_in_any_place_is_never_run(tmp_path, bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps(Owned())
    size = int.from_bytes(bundle[:8], "little")  # a safetensors file: a length, a header, raw numbers
    for where in (0, 8, 8 + size // 2, 8 + size, len(bundle) - len(evil)):
        (tmp_path / "m.luthier").write_bytes(bundle[:where] + evil + bundle[where + len(evil) :])
        with pytest.raises(LuthierError):
            lt.load(tmp_path / "m.luthier")
    (tmp_path / "n.luthier").write_bytes(evil)
    with pytest.raises(LuthierError):
        lt.load(tmp_path / "n.luthier")
    (tmp_path / "s.jsonl").write_bytes(evil)
    with pytest.raises(LuthierError):
        import_study(tmp_path / "s.jsonl", tmp_path / "t.db")
    path = Path(shutil.copy(FIXTURE, tmp_path / "s.db"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE luthier_trials SET params = ?, metrics = ?", (evil, evil))
    with pytest.raises(LuthierError):
        lt.load_study(path)
    assert not (tmp_path / "owned").exists()
