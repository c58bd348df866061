"""A process of its own on one processor core that answers questions, one line of JSON each way.

Both ends: `Pinned` starts it and asks; the process itself uses `next_line` and `tell`. Knows nothing of what is asked.
"""

import asyncio
import functools
import os
import sys
from contextlib import suppress
from typing import Self, TypeVar

import msgspec

__all__ = ["Pinned", "cores", "next_line", "tell"]

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
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, {self._core}) if can_pin else None,
        )
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """The end of its questions is its end. Raises RuntimeError when it does not end, or badly."""
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
            raise RuntimeError(f"{self._module} ended with status {process.returncode}; see what it said above")

    async def ask(self, question: msgspec.Struct, expected: type[A]) -> A:
        """Raises RuntimeError when it has ended; why, it said on standard error."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(question) + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended before its time; see what it said above")
        return msgspec.json.decode(line, type=expected)

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._module} was not started; use `async with`")
        return self._process


async def next_line() -> bytes:
    """The next question, in the process that is asked; empty when there are no more."""
    return await asyncio.to_thread(sys.stdin.buffer.readline)


def tell(reply: msgspec.Struct) -> None:
    """Answer it."""
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()
