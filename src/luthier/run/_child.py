"""The driver's handle on one worker process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from typing import Any

import cloudpickle
import psutil

from luthier.run import Job, Limits

_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from luthier.run._worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_TAG = "LUTHIER_WORKER"
_LINES_PER_TRIAL = 50
_LINE = 1000  # characters
_CHUNK = 1 << 16  # bytes
_CHUNKS = 16  # read in one go, so that one trial's flood of text does not keep the others waiting
_LOOK = 0.2  # seconds between two looks at a process's memory


class Child:
    """A worker process, the pipe to it, and the trial it has in hand.

    Args:
        packed: the objective, see :func:`luthier.run._pack.pack`.
        workers: how many such processes share this machine.
    """

    def __init__(self, packed: bytes, workers: int) -> None:
        self.job: Job | None = None
        self._began = 0.0
        self._looked = 0.0
        self._ready = False
        self._said = 0
        self._text = b""
        self._tag = uuid.uuid4().hex  # what the process and all that it starts carry in their environment
        mine, theirs = Pipe()
        life_read, self._life = os.pipe()
        out_read, out_write = os.pipe()
        self._pipe: Connection[Any, Any] = mine
        self._out = out_read
        fds = (theirs.fileno(), life_read)
        try:
            with _ctrl_c_waits():
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _MAIN, *map(str, fds), json.dumps(_search_path())],
                    pass_fds=fds,
                    env={**os.environ, **_threads(workers), _TAG: self._tag},
                    stdin=subprocess.DEVNULL,
                    stdout=out_write,
                    stderr=out_write,
                    start_new_session=True,
                )
        finally:
            theirs.close()
            os.close(life_read)
            os.close(out_write)
        os.set_blocking(self._out, False)
        self._send(packed)

    @property
    def sources(self) -> list[Any]:
        """What to listen to; empty once the process is buried."""
        return [self._pipe, *([self._out] if self._out >= 0 else [])]

    def start(self, job: Job) -> None:
        """Hands a trial to the process."""
        self.job = job
        self._began = time.monotonic()
        self._said = 0
        self._send(job)

    def _send(self, thing: Any) -> None:
        with contextlib.suppress(OSError):  # a process that died in the meantime is noticed by its silence
            self._pipe.send_bytes(cloudpickle.dumps(thing))

    def answer(self, reason: str | None) -> None:
        """Answers a report: None to go on."""
        self._pipe.send_bytes(json.dumps(reason).encode())

    def message(self) -> dict[str, Any] | None:
        """What the process has to say, if anything.

        Raises:
            EOFError: it has died.
        """
        if not self._pipe.poll():
            return None
        message: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        if "ready" in message:
            self._began = time.monotonic()  # starting up is not the trial's fault
            self._ready = True
        return message

    def lines(self, last: bool = False) -> Iterator[str]:
        """Complete lines that it printed, so many per trial at most; the rest is read and left out."""
        for _ in range(_CHUNKS if self._out >= 0 else 0):
            try:
                chunk = os.read(self._out, _CHUNK)
            except BlockingIOError:
                break
            if not chunk:
                os.close(self._out)
                self._out = -1
                break
            self._text = (self._text + chunk)[-4 * _CHUNK :]
            *whole, self._text = self._text.split(b"\n")
            yield from self._shown(whole)
        if last and self._text:
            whole, self._text = [self._text], b""
            yield from self._shown(whole)

    def _shown(self, lines: list[bytes]) -> Iterator[str]:
        for line in lines:
            self._said += 1
            if self._said <= _LINES_PER_TRIAL:
                yield line.decode(errors="replace")[:_LINE]
            elif self._said == _LINES_PER_TRIAL + 1:
                yield f"... what else it prints is left out ({_LINES_PER_TRIAL} lines per trial are shown)"

    def beyond(self, limits: Limits) -> str | None:
        """Why the trial in hand must be killed, or None."""
        now = time.monotonic()
        if self.job is None or not self._ready:
            return None
        if limits.seconds is not None and now - self._began > limits.seconds:
            return f"out of time: it ran longer than {limits.seconds:g} s"
        if limits.memory_gb is not None and now - self._looked > _LOOK:
            self._looked = now
            used = self.memory()
            if used > limits.memory_gb * 1e9:
                return f"out of memory: it used {used / 1e9:.2f} GB of {limits.memory_gb:g} GB allowed"
        return None

    def memory(self) -> float:
        """Resident bytes of the process and its descendants."""
        return sum(map(_resident, [self._process.pid, *(p.pid for p in _children(self._process.pid))]))

    def epitaph(self) -> str:
        """Why the process died, in words."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the worker process closed its pipe"
        if code >= 0:
            return f"the worker process ended itself (exit code {code})"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = "; often the system's answer to a lack of memory" if name == "SIGKILL" else ""
        return f"the worker process was killed by {name}{hint}"

    def kill(self) -> None:
        """Ends the process and all its children now."""
        for process in [*_children(self._process.pid), self._process]:
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)  # those whose parent has already gone
        for process in _tagged(self._tag):  # and those that began a session of their own
            with contextlib.suppress(psutil.Error, OSError):
                process.kill()
        self._process.wait()
        self._pipe.close()
        for fd in (self._life, self._out):
            if fd >= 0:
                os.close(fd)
        self._out = -1


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Holds SIGINT back, here and in a process that is started meanwhile: until it has left our group, it gets ours."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _children(pid: int) -> list[Any]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _tagged(tag: str) -> Iterator[Any]:
    """The processes that carry a tag, as far as they can be seen."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(_TAG) == tag:
                yield process


def _resident(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0.0


def _search_path() -> list[str]:
    return [os.getcwd() if entry == "" else entry for entry in sys.path]


def _threads(workers: int) -> dict[str, str]:
    """Environment that gives each worker its share of the cores, or fewer where the user said so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // workers)
    out = {}
    for name in _THREAD_VARIABLES:
        wish = os.environ.get(name, "")
        out[name] = str(min(share, int(wish)) if wish.isdigit() and int(wish) > 0 else share)
    return out
