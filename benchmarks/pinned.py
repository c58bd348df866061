"""A process of its own on one processor core that answers questions, one line of JSON each way.

Both ends: `start`, `ask` and `end`, or `Pinned` where nothing may wait meanwhile; the process itself uses `next_line`
and `tell`, under `telling_errors`. Knows nothing of what is asked.
"""

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self, TypeVar

import msgspec

from outrider.errors import EngineError, OutriderError
from outrider.wire import Fault

__all__ = ["Pinned", "ask", "cores", "end", "next_line", "start", "tell", "telling_errors"]

A = TypeVar("A", bound=msgspec.Struct)

END_S = 30.0


def cores(count: int) -> list[int]:
    """Cores for so many processes; the last one has to do for what is beyond them."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return [usable[min(number, len(usable) - 1)] for number in range(count)]


def start(module: str, core: int | None = None) -> "subprocess.Popen[bytes]":
    """The process of a module, on that core where the system can; asked by its input, answers by its output."""
    pin = None
    if core is not None and hasattr(os, "sched_setaffinity"):
        pin = functools.partial(os.sched_setaffinity, 0, {core})
    command = [sys.executable, "-P", "-m", module]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=pin)


def ask(process: "subprocess.Popen[bytes]", question: msgspec.Struct, expected: type[A], name: str) -> A:
    """Raises what `read_reply` does."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(question) + b"\n")
        process.stdin.flush()
    return read_reply(process.stdout.readline(), expected, name)


class Pinned:
    """`async with Pinned("benchmarks.link_device", 1) as device:` runs that module on core 1, where the system can."""

    def __init__(self, module: str, core: int) -> None:
        self._module, self._core = module, core
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = start(self._module, self._core)
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """The end of its questions is its end. Raises EngineError when it does not end, or badly."""
        status = await asyncio.to_thread(end, self._running())
        if status and error is None:
            raise EngineError(f"{self._module} ended with status {status}; see what it said above")

    async def ask(self, question: msgspec.Struct, expected: type[A]) -> A:
        """Raises what `read_reply` does."""
        return await asyncio.to_thread(ask, self._running(), question, expected, self._module)

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"{self._module} was not started; use `async with`")
        return self._process


def end(process: "subprocess.Popen[bytes]") -> int:
    """The end of its questions is its end; its exit status."""
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def read_reply(line: bytes, expected: type[A], process: str) -> A:
    """Raises the error that the process told instead; EngineError when it ended, and said why on standard error."""
    if not line:
        raise EngineError(f"{process} ended before its time; see what it said above")
    if line.startswith(b"["):  # as errors travel; answers are objects
        raise msgspec.json.decode(line, type=Fault).error()
    return msgspec.json.decode(line, type=expected)


async def next_line() -> bytes:
    """The next question, in the process that is asked; empty when there are no more."""
    return await asyncio.to_thread(sys.stdin.buffer.readline)


def tell(reply: msgspec.Struct) -> None:
    """Answer it."""
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def telling_errors() -> Iterator[None]:
    """In the process that is asked: an error of the tree is its last answer."""
    try:
        yield
    except OutriderError as error:
        tell(Fault.of(error))
