"""Events of an asynchronous generator for code that is not asynchronous, by an event loop in a thread of its own.

The loop goes on while the caller does other things: links stay alive, and drafts run ahead. Knows no runtime.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, suppress
from typing import TypeVar

__all__ = ["iterate"]

T = TypeVar("T")


def iterate(events: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The same events, and the same errors. Leaving the iteration early, or closing it, ends the generator too."""
    inbox: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()

    async def listen() -> None:
        async with aclosing(events):
            async for event in events:
                inbox.put((event,))

    listening = loop.create_task(listen())

    def run() -> None:
        last: BaseException | None = None
        try:
            loop.run_until_complete(listening)
        except BaseException as error:  # noqa: BLE001  raised where the events are heard
            last = error
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            inbox.put(last)

    thread = threading.Thread(target=run, name="events", daemon=True)
    thread.start()
    try:
        while isinstance(said := inbox.get(), tuple):
            yield said[0]
        if said is not None:
            raise said
    finally:
        with suppress(RuntimeError):  # it is over already
            loop.call_soon_threadsafe(listening.cancel)
        thread.join()
