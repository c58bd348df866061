"""Tasks that nobody waits for any more."""

import asyncio
from contextlib import suppress
from typing import Any

__all__ = ["cancelled"]


async def cancelled(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel what still runs and wait until all of it is over; how it ended is nobody's concern."""
    for task in tasks:
        if task is not None:
            task.cancel()
    for task in tasks:
        if task is not None:
            with suppress(asyncio.CancelledError, Exception):
                await task
