"""Studies under fire: the driver or a worker is killed, the disk fills up, the clock jumps, the database's server is
restarted, at random moments.

    python bench/studies/chaos.py [rounds] [store]     # store: a folder (SQLite, the default), a URL, or "postgres"

"postgres" starts a server of its own (Debian's package) and restarts it as well. Trials pause, are promoted and go on
from their checkpoints all the while. After each round every trial that had ended must be there exactly as it was, and
every pause, too; in the end the study must hold exactly the asked number of trials, each once, none of them running or
paused, no step twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import luthier as lt
from luthier.errors import LuthierError
from luthier.trial import Status, Trial

DRIVER = """
import os, random, resource, sys, time

place, total, event, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
import luthier as lt

if event == "clock":
    honest, jump = time.time, random.choice([-1e6, 1e6])
    begun = time.monotonic()
    time.time = lambda: honest() + (jump if time.monotonic() > begun + 0.3 else 0.0)
if event == "disk":
    room = os.path.getsize(place + "-wal") if os.path.exists(place + "-wal") else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (room + random.randrange(1, 200_000),) * 2)

def objective(trial):
    file = os.path.join(trial.checkpoint, "step")
    if trial.resumed:
        assert int(open(file).read()) >= trial.step
    for step in range(max(trial.step, 0) + 1, 10):
        time.sleep(0.002)
        with open(file + ".new", "w") as new:
            new.write(str(step))
        os.replace(file + ".new", file)
        trial.report(step, loss=trial["x"] ** 2 + 1 / step)
    return trial["x"] ** 2

class Starter:
    # says once that a trial has reported something
    told = False
    def update(self, trial):
        if trial.reports and not self.told:
            self.told = True
            print("up", flush=True)
    open = say = lambda self, *words: None
    close = lambda self: None

lt.tune(objective, lt.Space(x=lt.Float(-1, 1)), minimize="loss", algorithm="random", trials=total, workers=2,
        executor="processes", store=place, name="chaos", checkpoints=folder, progress=Starter(),
        stop=lt.stop.ASHA(max_steps=9, promote=True))
"""


@contextlib.contextmanager
def postgres() -> Iterator[tuple[str, Callable[[], object]]]:
    """A server of our own on a free port: its URL, and what kills and starts it again."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="luthier-pg-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        if user:
            shutil.chown(folder, "postgres")
        free.close()
        how = {"check": True, "capture_output": True, "cwd": folder, **user}
        subprocess.run([binaries / "initdb", "-D", "data", "-U", "luthier", "-A", "trust", "-E", "UTF8"], **how)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = [binaries / "pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "-m", "immediate"]
        subprocess.run([*control, "start"], **how)
        try:
            url = f"postgresql://luthier@127.0.0.1:{port}/postgres"
            yield url, lambda: subprocess.run([*control, "restart"], **how)
        finally:
            subprocess.run([*control, "stop"], **how)


def trials(place: str) -> dict[int, Trial]:
    try:
        return {t.number: t for t in lt.load_study(place, "chaos").trials}
    except LuthierError as error:
        if "damaged" in str(error):
            raise
        return {}  # killed before the study was made


def kept(trial: Trial) -> object:
    """What may never change: all of a trial that has ended, of another one what it did before its last pause."""
    if trial.finished and not (trial.cause or "").startswith("interrupted"):
        return trial
    legs = tuple(leg for leg in trial.legs if leg.step is not None)
    return legs, tuple(r for r in trial.reports if r.step <= trial.floor)


def lasts(before: object, trial: Trial) -> bool:
    if isinstance(before, Trial):
        return trial == before
    legs, reports = before
    return trial.legs[: len(legs)] == legs and trial.reports[: len(reports)] == reports


def fire(event: str, process: subprocess.Popen, dice: random.Random, restart: Callable[[], object]) -> None:
    """Does what the event is, some time into the run."""
    if dice.random() < 0.9:  # else at any moment of its start, too
        process.stdout.readline()
    time.sleep(dice.uniform(0.0, 1.5))
    if event == "worker":
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        for pid in found[: dice.randint(1, 2)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    elif event == "server":
        restart()
    if event != "driver":
        time.sleep(dice.uniform(0.0, 0.8))
    process.kill()
    process.wait()


def main(rounds: int, place: str, folder: str, restart: Callable[[], object] | None = None) -> None:
    dice = random.Random(0)
    events = ["driver", "worker", "clock", *(["disk"] if "://" not in place else []), *(["server"] if restart else [])]
    tally = dict.fromkeys(events, 0)
    known: dict[int, object] = {}
    for number in range(rounds):
        event = dice.choice(events)
        command = [sys.executable, "-c", DRIVER, place, "1000000", event, folder]  # more than there is time for
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            fire(event, process, dice, restart or (lambda: None))
        tally[event] += 1
        now = trials(place)
        for k, before in known.items():
            assert k in now, f"round {number} ({event}): trial {k} is gone"
            assert lasts(before, now[k]), f"round {number} ({event}): trial {k} was {before} and is {now[k]}"
        known = {k: kept(t) for k, t in now.items()}
        count = sum(isinstance(v, Trial) for v in known.values())
        print(f"round {number + 1}: {event}, {len(known)} trials, {count} of them have ended", flush=True)
    total = max(len(known) + 20, 1)
    subprocess.run([sys.executable, "-c", DRIVER, place, str(total), "none", folder], check=True)
    last = trials(place)
    assert sorted(last) == list(range(total))
    assert all(t.finished for t in last.values())
    assert all(lasts(before, last[k]) for k, before in known.items())
    assert all([r.step for r in t.reports] == list(range(1, len(t.reports) + 1)) for t in last.values())
    turns = [leg.turn for t in last.values() for leg in t.legs]
    assert len(set(turns)) == len(turns)
    kinds = {s.value: sum(t.status is s for t in last.values()) for s in Status}
    promoted = len(turns) - total
    print(f"{rounds} rounds {tally}: {total} of {total} trials, {kinds}, {promoted} promotions; none lost, none twice")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    where = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=where if where and os.path.isdir(where) else None) as home:
        if where == "postgres":
            with postgres() as (url, again):
                main(count, url, home, again)
        else:
            main(count, where if where and "://" in where else str(Path(home) / "chaos.db"), home)
