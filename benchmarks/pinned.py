"""A process of its own on one processor core that answers questions, one line of JSON each way.

Both ends: `Pinned` starts it and asks; the process itself uses `next_line` and `tell`, under `telling_errors`. Knows
nothing of what is asked.
"""

import asyncio
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self, TypeVar

import msgspec

from outrider.errors import EngineError, OutriderError
from outrider.wire import Fault

__all__ = ["Pinned", "cores", "next_line", "read_reply", "tell", "telling_errors"]

A = TypeVar("A", bound=msgspec.Struct)

MAX_LINE = 2**26
END_S = 30.0


def cores(count: int) -> list[int]:
    """Cores for so many processes; the last one has to do for what is beyond them."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return [usable[min(number, len(usable) - 1)] for number in range(count)]


class Pinned:
    """`async with Pinned("benchmarks.link_device", 1) as device:` runs that module on core 1, where the system can."""

    def __init__(self, module: str, core: int) -> None:
        self._module, self._core = module, core
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        can_pin = hasattr(os, "sched_setaffinity")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, {self._core}) if can_pin else None,
        )
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """The end of its questions is its end. Raises EngineError when it does not end, or badly."""
        process = self._running()
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
        if process.returncode and error is None:
            raise EngineError(f"{self._module} ended with status {process.returncode}; see what it said above")

    async def ask(self, question: msgspec.Struct, expected: type[A]) -> A:
        """Raises what `read_reply` does."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            await process.stdin.drain()
        return read_reply(await process.stdout.readline(), expected, self._module)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._module} was not started; use `async with`")
        return self._process


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
