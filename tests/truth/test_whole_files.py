"""Files are there whole or not at all: full disks, broken writers, permissions, several writers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from luthier.errors import OutputError
from luthier.files import whole, write_json, write_text

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from luthier.checkpoint import Checkpoint
from luthier.distillation.disk import Answers, _write
from luthier.errors import OutputError
from luthier.export.bundle import _write as bundle
from luthier.files import write_text

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as on a full disk: the write itself fails
big = torch.zeros(100_000)
for name, write in {
    "text": lambda path: write_text(path, "x" * 100_000),
    "checkpoint": lambda path: Checkpoint(path, "key").write({"weights": big}),
    "answers": lambda path: _write(path, "key", Answers((big,))),
    "network": lambda path: bundle({"weights": big}, {}, path),
}.items():
    path = Path(sys.argv[1], name)
    path.write_text("old")
    try:
        write(path)
    except OutputError as error:
        print(name, path.read_text(), "make room" in error.details["fix"])
"""


@pytest.mark.slow
def test_a_full_disk_is_said_by_every_writer_and_leaves_what_was_there(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"{name} old True" for name in ("text", "checkpoint", "answers", "network")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers", "checkpoint", "network", "text"]


def test_folders_are_made_and_contents_replaced(tmp_path):
    place = tmp_path / "new" / "deep" / "page.html"
    assert write_text(place, "old").read_text() == "old"
    assert write_text(str(place), "nëw").read_text(encoding="utf-8") == "nëw"
    assert json.loads(write_json(place, {"a": [1, 2.5, None]}).read_text()) == {"a": [1, 2.5, None]}


def _half_written(place, error: Exception, **options) -> None:
    with whole(place, **options) as draft:
        draft.write_text("half")
        raise error


def test_a_block_that_raises_changes_nothing(tmp_path):
    place = write_text(tmp_path / "page.html", "old")
    with pytest.raises(KeyError):
        _half_written(place, KeyError("mine"))
    with pytest.raises(OutputError, match="No space left"):
        _half_written(place, OSError(28, "No space left on device"))
    with pytest.raises(OutputError, match="short write"):
        _half_written(place, RuntimeError("short write"), full=(RuntimeError,))
    assert place.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_file_in_the_way_of_a_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        write_text(tmp_path / "file" / "page.html", "x")
    assert "choose another place" in caught.value.details["fix"]


def test_permissions_are_the_users_and_stay(tmp_path):
    before = os.umask(0o027)
    try:
        place = write_text(tmp_path / "a", "1")
        assert place.stat().st_mode & 0o777 == 0o640
        place.chmod(0o604)
        assert write_text(place, "2").stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(before)


def test_long_names_and_many_writers(tmp_path):
    place = tmp_path / ("n" * 250)
    texts = [str(i) * 50_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(place, text), texts))
    assert place.read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1
