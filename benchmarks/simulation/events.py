"""Event by event: devices, the link of each, and one server behind them. Who the server is, it does not know."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.simulation.device import Device
from outrider.wire import Down, Up

__all__ = ["Link", "Server", "play"]

SHORTEST_MS = 0.001  # a wait that rounding made too short must come to its end


@dataclass(frozen=True)
class Link:
    """`rtt_ms` there and back; `jitter_ms` is added each way, uniform from 0, and never reorders."""

    rtt_ms: float
    jitter_ms: float = 0.0


class Server(Protocol):
    """What stands behind the links. It reads messages between two passes."""

    def receive(self, number: int, message: Up, now_ms: float) -> None:
        """Device `number` said this."""

    def step(self, now_ms: float) -> tuple[float, list[tuple[int, Down]]]:
        """One pass, if there is reason for one: how long it takes, and what is said to whom when it ends."""

    def wait_ms(self, now_ms: float) -> float | None:
        """Until something is to be done without any message; None never."""


def play(
    devices: Sequence[Device], server: Server, link: Link, *, seed: int = 0, num_tokens: int | None = None
) -> None:
    """Until all devices have their answers, or so many tokens were heard by them in all."""
    rng = random.Random(seed)  # noqa: S311
    events: list[tuple[float, int, str, int, object]] = []
    counter = 0
    last_arrival: dict[tuple[str, int], float] = {}
    inbox: list[tuple[int, Up]] = []
    is_busy = False
    num_left = len(devices)
    num_heard = 0

    def at(when: float, kind: str, number: int, what: object = None) -> None:
        nonlocal counter
        counter += 1
        heapq.heappush(events, (when, counter, kind, number, what))

    def travel(now: float, way: str, number: int, what: object) -> None:
        arrival = now + link.rtt_ms / 2 + (rng.uniform(0, link.jitter_ms) if link.jitter_ms else 0.0)
        last_arrival[way, number] = arrival = max(arrival, last_arrival.get((way, number), 0.0))
        at(arrival, way, number, what)

    def draft(now: float, number: int) -> None:
        if (begun := devices[number].start()) is not None:
            at(now + begun[0], "drafted", number, begun[1])

    def verify(now: float) -> None:
        nonlocal is_busy
        for number, message in inbox:
            server.receive(number, message, now)
        inbox.clear()
        duration_ms, said = server.step(now)
        if duration_ms or said:
            is_busy = True
            at(now + duration_ms, "passed", 0, said)
        elif (wait_ms := server.wait_ms(now)) is not None:
            at(now + max(wait_ms, SHORTEST_MS), "wake", 0)

    for number, device in enumerate(devices):
        at(device.asks_ms, "ask", number)
    while events and num_left and (num_tokens is None or num_heard < num_tokens):
        now, _, kind, number, what = heapq.heappop(events)
        if kind == "ask":
            inbox.append((number, devices[number].opening()))
            draft(now, number)
            if not is_busy:
                verify(now)
        elif kind == "drafted":
            message = devices[number].drafted(what)  # type: ignore[arg-type]
            if message is not None:
                travel(now, "up", number, message)
            draft(now, number)
        elif kind == "up":
            inbox.append((number, what))  # type: ignore[arg-type]
            if not is_busy:
                verify(now)
        elif kind == "passed":
            is_busy = False
            for receiver, said in what:  # type: ignore[attr-defined]
                travel(now, "down", receiver, said)
            verify(now)
        elif kind == "wake":
            if not is_busy:
                verify(now)
        else:
            device = devices[number]
            num_heard += device.hear(what, now)  # type: ignore[arg-type]
            num_left -= device.is_done
            draft(now, number)
