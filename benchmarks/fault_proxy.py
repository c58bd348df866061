"""A TCP proxy that does to connections what networks do, in Toxiproxy's words. Knows bytes; nothing of WebSockets.

Each direction of each connection has its `Toxics`, chosen by the connection's number (0, 1, ...), anew for every piece.
Latency delays pieces and holds nothing up: as on a long cable, many may be under way at once. What passed is kept, with
the time it passed, for whoever looks at traffic. Runs in the caller's event loop and ends all it started.
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
    was_reset: bool = False


class FaultProxy:
    """`async with FaultProxy(port) as proxy:` listens on `proxy.port` and passes on to `port`, both on loopback."""

    def __init__(self, port: int, *, up: Choose = lambda n: CLEAR, down: Choose = lambda n: CLEAR, seed: int = 0):
        self.upstream = port
        self.up, self.down = up, down
        self._random = random.Random(seed)  # noqa: S311
        self._running: dict[asyncio.Task[None], Traffic] = {}
        self._num_held = 0  # connections of lower numbers are held
        self._released = asyncio.Event()
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
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Toxiproxy's `down`: refuse connections, and cut those that are open."""
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self, *, is_reset: bool = False) -> None:
        """End the connections that are open, whatever they have under way."""
        for task, traffic in self._running.items():
            traffic.was_cut, traffic.was_reset = True, is_reset
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def is_holding(self) -> bool:
        return self._num_held > 0

    def hold(self) -> None:
        """What the connections of now carry from here on arrives after `release`, though later ones pass it by."""
        self._num_held = len(self.traffic)
        self._released.clear()

    def release(self) -> None:
        self._num_held = 0
        self._released.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Known from its first moment: `cut` ends also what has not begun."""
        assert self._server is not None
        if not self._server.is_serving():
            return writer.close()
        traffic = Traffic()
        task = asyncio.create_task(self._serve(len(self.traffic), traffic, reader, writer))
        self._running[task] = traffic
        self.traffic.append(traffic)

        def end(task: asyncio.Task[None]) -> None:
            del self._running[task]
            writer.close()

        task.add_done_callback(end)
        return None

    async def _serve(
        self, number: int, traffic: Traffic, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writers, is_over = [writer], False
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            writers.append(far_writer)
            ways = [
                (reader, far_writer, lambda: self.up(number), traffic.up),
                (far_reader, writer, lambda: self.down(number), traffic.down),
            ]
            pipes = [asyncio.create_task(self._pipe(number, *way, traffic)) for way in ways]
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.gather(*pipes, return_exceptions=True)
        except OSError:  # nobody behind
            pass
        except asyncio.CancelledError:  # `cut`
            is_over = True
        finally:
            for each in writers:
                if traffic.was_reset:
                    sock: socket.socket = each.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if traffic.was_reset or is_over:
                    each.transport.abort()
                each.close()

    async def _pipe(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        choose: Callable[[], Toxics],
        seen: list[tuple[float, bytes]],
        traffic: Traffic,
    ) -> None:
        """Write out what `_take` takes in, each piece when it is due."""
        under_way: UnderWay = asyncio.Queue(MAX_UNDER_WAY)
        taking = asyncio.create_task(self._take(reader, choose, under_way, traffic))
        try:
            while True:
                due_s, data = await under_way.get()
                if (wait_s := due_s - time.perf_counter()) > 0:
                    await asyncio.sleep(wait_s)
                if number < self._num_held:
                    await self._released.wait()
                if not data:
                    break
                seen.append((time.perf_counter(), data))
                with suppress(OSError):  # who is gone hears no more; the other may still be heard
                    writer.write(data)
                    await writer.drain()
            if (cut := await taking) is not None:
                traffic.was_cut, traffic.was_reset = True, traffic.was_reset or cut.reset_peer
                if cut.timeout:
                    await asyncio.Event().wait()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(
        self, reader: asyncio.StreamReader, choose: Callable[[], Toxics], under_way: UnderWay, traffic: Traffic
    ) -> Toxics | None:
        """Take pieces in, each with the time when it is due, and an empty one for the end; what cut them, if so."""
        passed = 0

        def due_s() -> float:
            return time.perf_counter() + toxics.latency_s + self._random.uniform(0, toxics.jitter_s)

        with suppress(OSError):
            while passed < (toxics := choose()).limit_data and (data := await reader.read(min(toxics.slicer, 2**16))):
                toxics = choose()
                data = data[: max(0, int(min(toxics.limit_data - passed, len(data))))]
                passed += len(data)
                if (busy_s := len(data) / toxics.bandwidth) > 0:
                    await asyncio.sleep(busy_s)
                if data:
                    await under_way.put((due_s(), data))
                traffic.most_under_way = max(traffic.most_under_way, under_way.qsize())
        await under_way.put((due_s(), b""))
        return toxics if passed >= toxics.limit_data else None
