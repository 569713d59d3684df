"""Studies whose disk fills up and whose clock jumps: what had ended stays, and the rest is run again."""

from __future__ import annotations

import subprocess
import sys

import pytest

import luthier as lt

DRIVER = """
import resource, sys, time
import luthier as lt

event, place = sys.argv[1:]
if event == "disk":  # files may grow to 400 kB: room for some trials, not for all
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
if event in ("forward", "back"):
    honest, calls = time.time, iter(range(10**9))
    jump = 1e6 if event == "forward" else -1e6
    time.time = lambda: honest() + (jump if next(calls) > 20 else 0.0)

lt.tune(lambda t: t["x"] ** 2, lt.Space(x=lt.Float(-1, 1)), minimize="loss", algorithm="random", trials=400,
        store=place, name="s", progress=False)
"""


def driven(event: str, place) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, event, str(place)], capture_output=True, text=True, timeout=120
    )


def outcomes(place) -> dict[int, float]:
    return {t.number: t.metrics["loss"] for t in lt.load_study(place, "s").trials if "loss" in t.metrics}


def test_a_full_disk_ends_the_run_with_a_reason_and_keeps_what_had_ended(tmp_path):
    place = tmp_path / "s.db"
    full = driven("disk", place)
    assert full.returncode != 0
    assert "got:" in full.stderr
    assert "nothing that was finished is lost" in full.stderr
    before = outcomes(place)
    assert 0 < len(before) < 400
    assert driven("none", place).returncode == 0
    after = outcomes(place)
    assert sorted(after) == list(range(400))
    assert {n: after[n] for n in before} == before


@pytest.mark.parametrize("event", ["forward", "back"])
def test_a_clock_that_jumps_changes_no_result(tmp_path, event):
    place = tmp_path / "s.db"
    done = driven(event, place)
    assert done.returncode == 0, done.stderr
    assert driven("none", tmp_path / "honest.db").returncode == 0
    assert outcomes(place) == outcomes(tmp_path / "honest.db")
    assert len(outcomes(place)) == 400
