"""Studies under fire: the driver or a worker is killed, the disk fills up, the clock jumps, at random moments.

    python bench/studies/chaos.py [rounds] [store]     # store: a folder (SQLite, the default) or a database URL

After each round every trial that had ended must be there exactly as it was; in the end the study must hold
exactly the asked number of trials, each once, none of them running.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import luthier as lt
from luthier.errors import LuthierError
from luthier.trial import Status, Trial

DRIVER = """
import os, random, resource, sys, time

place, total, event = sys.argv[1], int(sys.argv[2]), sys.argv[3]
import luthier as lt

if event == "clock":
    honest, jump = time.time, random.choice([-1e6, 1e6])
    begun = time.monotonic()
    time.time = lambda: honest() + (jump if time.monotonic() > begun + 0.3 else 0.0)
if event == "disk":
    room = os.path.getsize(place + "-wal") if os.path.exists(place + "-wal") else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (room + random.randrange(1, 200_000),) * 2)

def objective(trial):
    for step in range(1, 4):
        time.sleep(0.002)
        trial.report(step, loss=trial["x"] ** 2)
    return trial["x"] ** 2

lt.tune(objective, lt.Space(x=lt.Float(-1, 1)), minimize="loss", algorithm="random", trials=total, workers=2,
        executor="processes", store=place, name="chaos", progress=False)
"""


def ended(place: str) -> dict[int, Trial]:
    try:
        study = lt.load_study(place, "chaos")
    except LuthierError:
        return {}
    return {t.number: t for t in study.trials if t.finished and not (t.cause or "").startswith("interrupted")}


def fire(event: str, process: subprocess.Popen, dice: random.Random) -> None:
    """Does what the event is, some time into the run."""
    time.sleep(dice.uniform(0.3, 2.5))
    if event == "driver":
        process.kill()
    elif event == "worker":
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        for pid in found[: dice.randint(1, 2)]:
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(dice.uniform(0.0, 0.5))
        process.kill()
    else:
        time.sleep(dice.uniform(0.2, 0.8))
        process.kill()
    process.wait()


def main(rounds: int, place: str) -> None:
    dice = random.Random(0)
    total = 1_000_000  # more than there is time for
    events = ["driver", "worker", "clock"] + (["disk"] if "://" not in place else [])
    tally = dict.fromkeys(events, 0)
    known: dict[int, Trial] = {}
    for number in range(rounds):
        event = dice.choice(events)
        command = [sys.executable, "-c", DRIVER, place, str(total), event]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        fire(event, process, dice)
        tally[event] += 1
        now = ended(place)
        for k, trial in known.items():
            assert now.get(k) == trial, f"round {number} ({event}): trial {k} was {trial} and is {now.get(k)}"
        known = now
        print(f"round {number + 1}: {event}, {len(known)} trials have ended", flush=True)
    lasting = max(len(known) + 20, 1)
    subprocess.run([sys.executable, "-c", DRIVER, place, str(lasting), "none"], check=True)
    study = lt.load_study(place, "chaos")
    assert [t.number for t in study.trials] == list(range(lasting))
    assert all(t.finished for t in study.trials)
    assert all(study.ledger[k] == t for k, t in known.items())
    kinds = {s.value: sum(t.status is s for t in study.trials) for s in Status}
    print(f"{rounds} rounds {tally}: {lasting} of {lasting} trials, {kinds}; nothing lost, nothing twice")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    if len(sys.argv) > 2 and "://" in sys.argv[2]:
        main(count, sys.argv[2])
    else:
        with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
            main(count, str(Path(folder) / "chaos.db"))
