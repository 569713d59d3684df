"""The child's side of the process executor: reads jobs from a pipe, evaluates, reports, until the pipe ends.

The driver trusts nothing that comes back: answers travel as JSON, only jobs are pickled.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.run import Outcome

_PR_SET_PDEATHSIG = 1


def main(jobs_fd: int, life_fd: int) -> None:
    """Serves jobs until the driver closes the pipe.

    Args:
        jobs_fd: a duplex pipe: setup and jobs come in, reports and outcomes go out.
        life_fd: a pipe on which nothing ever comes; its end means that the driver is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it was held back while this process started
    faulthandler.enable()
    _die_with_driver(life_fd)
    pipe = Connection(jobs_fd)
    try:
        objective, objectives = pickle.loads(pickle.loads(pipe.recv_bytes()))
    except BaseException as error:
        _send(pipe, {"unreadable": f"{type(error).__name__}: {error}"})
        return
    _send(pipe, {"ready": True})
    while True:
        try:
            job = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        _serve(pipe, objective, objectives, job)


def _serve(pipe: Connection, objective: Any, objectives: Any, job: Any) -> None:
    from luthier.run._live import evaluate
    from luthier.trial import Report

    def tell(report: Report) -> str | None:
        _send(pipe, {"step": report.step, "metrics": written(report.metrics)})
        answer: str | None = json.loads(pipe.recv_bytes())
        return answer

    outcome = evaluate(objective, objectives, job, tell)
    sys.stdout.flush()
    sys.stderr.flush()
    _send(pipe, {"end": closing(outcome)})


def written(metrics: Mapping[str, float]) -> dict[str, str]:
    """Metrics as JSON has them, exact to the last bit, NaN and infinities included."""
    return {name: float(value).hex() for name, value in metrics.items()}


def closing(outcome: Any) -> dict[str, Any]:
    """An outcome as JSON has it."""
    metrics = None if outcome.metrics is None else written(outcome.metrics)
    return {"status": outcome.status.value, "metrics": metrics, "cause": outcome.cause, "traceback": outcome.traceback}


def ending(row: Mapping[str, Any]) -> Outcome:
    """The inverse of :func:`closing`; trusts nothing that came from a worker."""
    from luthier.run import Outcome
    from luthier.trial import Status

    raw, cause = row["metrics"], row["cause"]
    metrics = {str(n): float.fromhex(t) for n, t in raw.items()} if isinstance(raw, dict) else None
    return Outcome(Status(row["status"]), metrics, str(cause) if cause else None, str(row["traceback"] or ""))


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _die_with_driver(life_fd: int) -> None:
    """Ends this process and its children when the driver dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(life_fd,), daemon=True).start()


def _watch(life_fd: int) -> None:
    try:
        os.read(life_fd, 1)
    finally:
        os.killpg(0, signal.SIGKILL)
