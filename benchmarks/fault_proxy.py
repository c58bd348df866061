"""A TCP proxy that does to connections what networks do, in Toxiproxy's words. Knows bytes; nothing of WebSockets.

Each direction of each connection has its `Toxics`, chosen by the connection's number (0, 1, ...). Latency delays pieces
and holds nothing up: as on a long cable, many may be under way at once. What passed is kept, with the time it passed,
for whoever looks at traffic. Runs in the caller's event loop and ends all it started.
"""

import asyncio
import math
import random
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self, TypeAlias

__all__ = ["CLEAR", "FaultProxy", "Toxics", "Traffic"]


@dataclass(frozen=True, slots=True)
class Toxics:
    """One direction of one connection. Pieces stay in order, whatever happens to them."""

    latency_s: float = 0.0  # a piece arrives so much later,
    jitter_s: float = 0.0  # and up to this much more, at random
    bandwidth: float = math.inf  # bytes a second; what comes after waits for its turn
    slicer: int = 2**16  # a piece has at most so many bytes
    limit_data: float = math.inf  # after so many bytes the connection is cut, both ways
    reset_peer: bool = False  # the cut is a reset (RST), not an end (FIN)
    timeout: bool = False  # from `limit_data` on nothing arrives and nothing is closed


CLEAR = Toxics()
MAX_UNDER_WAY = 4096  # pieces; a far end that does not read is felt at the near one
Choose = Callable[[int], Toxics]
UnderWay: TypeAlias = "asyncio.Queue[tuple[float, bytes]]"


@dataclass(slots=True)
class Traffic:
    """What one connection carried: pieces as (seconds, bytes) each way, and whether a toxic cut it."""

    up: list[tuple[float, bytes]] = field(default_factory=list)
    down: list[tuple[float, bytes]] = field(default_factory=list)
    most_under_way: int = 0  # pieces of one direction, at once
    was_cut: bool = False


class FaultProxy:
    """`async with FaultProxy(port) as proxy:` listens on `proxy.port` and passes on to `port`, both on loopback."""

    def __init__(self, port: int, *, up: Choose = lambda n: CLEAR, down: Choose = lambda n: CLEAR, seed: int = 0):
        self._upstream = port
        self.up, self.down = up, down
        self._random = random.Random(seed)  # noqa: S311
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.traffic: list[Traffic] = []  # by connection

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def num_connections(self) -> int:
        """Connections that are open now."""
        return len(self._running)

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Toxiproxy's `down`: refuse connections, and cut those that are open."""
        assert self._server is not None
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        number, traffic = len(self.traffic), Traffic()
        self.traffic.append(traffic)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            writers.append(far_writer)
            ways = [
                (reader, far_writer, self.up(number), traffic.up),
                (far_reader, writer, self.down(number), traffic.down),
            ]
            pipes = [asyncio.create_task(self._pipe(*way, traffic)) for way in ways]
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.gather(*pipes, return_exceptions=True)
        except (OSError, asyncio.CancelledError):  # nobody behind, or `stop`
            pass
        finally:
            is_reset = traffic.was_cut and (self.up(number).reset_peer or self.down(number).reset_peer)
            for each in writers:
                if is_reset:
                    sock: socket.socket = each.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    each.transport.abort()
                each.close()
            self._running.discard(task)

    async def _pipe(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        toxics: Toxics,
        seen: list[tuple[float, bytes]],
        traffic: Traffic,
    ) -> None:
        """Write out what `_take` takes in, each piece when it is due."""
        under_way: UnderWay = asyncio.Queue(MAX_UNDER_WAY)
        taking = asyncio.create_task(self._take(reader, toxics, under_way, traffic))
        is_cut = False
        try:
            with suppress(OSError):
                while True:
                    due_s, data = await under_way.get()
                    if (wait_s := due_s - time.perf_counter()) > 0:
                        await asyncio.sleep(wait_s)
                    if not data:
                        break
                    seen.append((time.perf_counter(), data))
                    writer.write(data)
                    await writer.drain()
                is_cut = await taking
            traffic.was_cut = traffic.was_cut or is_cut
            if is_cut and toxics.timeout:
                await asyncio.Event().wait()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, toxics: Toxics, under_way: UnderWay, traffic: Traffic) -> bool:
        """Take pieces in, each with the time when it is due, and an empty one for the end; whether that is a cut."""
        left = toxics.limit_data

        def due_s() -> float:
            return time.perf_counter() + toxics.latency_s + self._random.uniform(0, toxics.jitter_s)

        with suppress(OSError):
            while left > 0 and (data := await reader.read(min(toxics.slicer, 2**16))):
                data = data[: int(min(left, len(data)))]
                left -= len(data)
                if (busy_s := len(data) / toxics.bandwidth) > 0:
                    await asyncio.sleep(busy_s)
                await under_way.put((due_s(), data))
                traffic.most_under_way = max(traffic.most_under_way, under_way.qsize())
        await under_way.put((due_s(), b""))
        return left <= 0
