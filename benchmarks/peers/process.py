"""A peer in a process of its own: its libraries, threads and memory apart from ours, and its death a reason.

Knows of a program only the module that loads it, the libraries it needs and the files it reads.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.peers.base import PeerAnswer, PeerFailed
from benchmarks.peers.program import Answered, Ask, Failed, Job, Reply, Setting

__all__ = ["Library", "Machine", "Model", "ProcessPeer"]

ROOT = Path(__file__).parents[2]
OPEN_S = 600.0
ANSWER_S = 300.0
END_S = 10.0


class Library(Protocol):
    """What the process imports, and from where."""

    def reason(self) -> str | None: ...
    def search_path(self) -> Path | None: ...


@dataclass(frozen=True)
class Model:
    """A model's name, and its file or folder, or what brings it here."""

    name: str
    path: Path | None
    missing: str | None = None

    def reason(self) -> str | None:
        return self.missing if self.path is None else None


@dataclass(frozen=True)
class Machine:
    """What every peer gets of this machine: so many threads, on these cores."""

    num_threads: int
    cores: tuple[int, ...]
    max_context: int


@dataclass(frozen=True)
class ProcessPeer:
    """A `Peer` whose `module` is loaded by `benchmarks.peers.worker`."""

    name: str
    weights: str
    module: str
    library: Library
    target: Model
    drafter: Model | None
    options: Mapping[str, Setting]
    stop_ids: Sequence[int]
    machine: Machine

    @property
    def settings(self) -> Sequence[str]:
        return list(self.options)

    def reason(self) -> str | None:
        models = [model.reason() for model in (self.target, self.drafter) if model is not None]
        return next(filter(None, [self.library.reason(), *models]), None)

    def open(self, setting: str) -> "OpenProcess":
        if reason := self.reason():
            raise PeerFailed(reason)
        work = tempfile.TemporaryDirectory(prefix="peer-")
        return OpenProcess(self.job(setting, Path(work.name)), self.library.search_path(), work)

    def job(self, setting: str, work: Path) -> Job:
        return Job(
            module=self.module,
            target=str(self.target.path),
            drafter=str(self.drafter.path) if self.drafter else None,
            options=dict(self.options[setting]),
            stop_ids=list(self.stop_ids),
            max_context=self.machine.max_context,
            cores=list(self.machine.cores),
            num_threads=self.machine.num_threads,
            work=str(work),
        )


class OpenProcess:
    """The running process."""

    def __init__(self, job: Job, search_path: Path | None, work: tempfile.TemporaryDirectory[str]) -> None:
        self._work = work
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        paths = [str(path) for path in (search_path, ROOT) if path] + [os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmarks.peers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            cwd=work.name,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "PYTHONWARNINGS": "ignore",
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        try:
            self._ask(job, OPEN_S)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        reply = self._ask(Ask(list(prompt_ids), max_tokens), ANSWER_S)
        if not isinstance(reply, Answered):
            raise PeerFailed("it spoke out of turn")
        return reply.answer

    def close(self) -> None:
        """The end of its questions is its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()
        self._work.cleanup()

    def _ask(self, question: Job | Ask, limit_s: float) -> Reply:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        began_s = time.monotonic()
        late = threading.Timer(limit_s, self._process.kill)
        late.start()
        try:
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        finally:
            late.cancel()
        if not line:
            if time.monotonic() - began_s >= limit_s:
                raise PeerFailed(f"it gave no answer within {limit_s:g} s")
            raise PeerFailed(self._last_words())
        reply: Reply = msgspec.json.decode(line, type=Reply)
        if isinstance(reply, Failed):
            raise PeerFailed(reply.reason)
        return reply

    def _last_words(self) -> str:
        """How it ended, and the last line that it said."""
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines() or [""]
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"its process {how}; {lines[-1]}".removesuffix("; ")
