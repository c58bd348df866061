"""`make bench-link`: a device and a verifier, a core each, and a link between them that takes its time.

Four ways to the same tokens, one after the other for each prompt and round trip: the target alone; drafting on the
device in turns; the same drafter beside the target; drafting ahead. All are heard over a real WebSocket through the
same delaying proxy. Prints tables and checks that every way said what the target says. Needs a quiet machine.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.fault_proxy import FaultProxy, Toxics
from benchmarks.link_device import Generation, Run, Tracing
from benchmarks.link_device import Ready as DeviceReady
from benchmarks.link_device import Setup as DeviceSetup
from benchmarks.link_tables import Measured, Record, print_tables
from benchmarks.link_verifier import Ready, Setup, Take, Taken
from benchmarks.pinned import Pinned, cores
from benchmarks.prompts import chat_prompts, code_prompts
from benchmarks.service import COUNTING
from benchmarks.traces import Trace
from benchmarks.turns import best_length
from edge_runtime.parts import DEFAULT_TARGET
from outrider import catalog
from outrider.engines.machine import processor
from outrider.tokens import TextCodec
from outrider.worth import PassCost

ALONE, TURNS, COLOCATED, AHEAD = WAYS = ["alone", "turns", "colocated", "ahead"]
RTTS_MS = [0.0, 14.0, 50.0, 100.0, 300.0]
COLD_TOKENS = 4


@dataclass(frozen=True)
class Texts:
    """What is asked, by kind, and what a device tells with it."""

    prompts: dict[str, list[list[int]]]
    stop_ids: list[int]
    vocabulary: str


class Bench:
    """The two processes, the proxy between them, and what was measured so far."""

    def __init__(
        self, device: Pinned, verifier: Pinned, ready: Ready, doors: dict[bool, FaultProxy], texts: Texts
    ) -> None:
        self._device, self._verifier, self._ready = device, verifier, ready
        self._doors = doors  # by whether drafting is beside the target
        self._texts = texts
        self.cold: list[Measured] = []
        self.measured: list[Measured] = []
        self.traces: dict[str, list[Trace]] = {kind: [] for kind in texts.prompts}

    async def generate(
        self, way: str, prompt: list[int], max_tokens: int, rtt_ms: float, num_drafts: int, *, is_cold: bool = False
    ) -> Run:
        proxy = self._doors[way == COLOCATED]
        toxics = Toxics(latency_s=rtt_ms / 2000)
        proxy.up = proxy.down = lambda number: toxics
        proxy.traffic.clear()
        job = Generation(
            f"http://127.0.0.1:{proxy.port}",
            self._ready.tokens[way],
            prompt,
            max_tokens,
            self._texts.stop_ids,
            self._texts.vocabulary,
            num_drafts,
            is_cold,
        )
        return await self._device.ask(job, Run)

    async def measure(self, kind: str, number: int, max_tokens: int, rtts_ms: Sequence[float]) -> None:
        """One prompt: all ways at all round trips; before that, how long a prompt takes that nobody has seen."""
        prompt = self._texts.prompts[kind][number]
        pass_ms = PassCost(self._ready.pass_ms)
        trace: Trace | None = None
        for way in WAYS:
            num_drafts = {TURNS: 1, AHEAD: -1}.get(way, 0)
            run = await self.generate(way, prompt, COLD_TOKENS, 0.0, num_drafts, is_cold=True)
            self.cold.append(Measured(kind, number, 0.0, way, num_drafts, run, await self._verifier.ask(Take(), Taken)))
        for rtt_ms in rtts_ms:
            for way in WAYS:
                num_drafts = {AHEAD: -1}.get(way, 0)
                if way == TURNS:
                    assert trace is not None
                    num_drafts = best_length(trace.text(), rtt_ms, pass_ms, trace.draft_ms)
                run = await self.generate(way, prompt, max_tokens, rtt_ms, num_drafts)
                taken = await self._verifier.ask(Take(), Taken)
                self.measured.append(Measured(kind, number, rtt_ms, way, num_drafts, run, taken))
                print(
                    f"{kind} {number + 1}, RTT {rtt_ms:g} ms, {way}: {run.tokens_per_s:.1f} tokens/s", file=sys.stderr
                )
                if trace is None:
                    trace = await self._device.ask(Tracing(prompt, run.token_ids), Trace)
                    self.traces[kind].append(trace)


def read_texts(target: str, count: int) -> Texts:
    if target == COUNTING:
        return Texts({"code": [[n, n + 1] for n in range(count)], "chat": [[n + 9] for n in range(count)]}, [], "")
    folder = catalog.find(target)
    codec = TextCodec(folder)
    asked = {"code": code_prompts(count), "chat": chat_prompts(count)}
    prompts = {
        kind: [codec.encode_chat([{"role": "user", "content": text}]) for text in texts]
        for kind, texts in asked.items()
    }
    return Texts(prompts, list(folder.manifest.stop_ids), folder.manifest.tokenizer_fingerprint)


async def run(options: argparse.Namespace) -> Record:
    texts = read_texts(options.model, options.prompts)
    verifier_core, device_core, proxy_core = cores(3)
    async with AsyncExitStack() as stack:
        verifier = await stack.enter_async_context(Pinned("benchmarks.link_verifier", verifier_core))
        device = await stack.enter_async_context(Pinned("benchmarks.link_device", device_core))
        ready = await verifier.ask(Setup(options.model, options.drafter, WAYS), Ready)
        drafter = await device.ask(DeviceSetup(options.model, options.drafter), DeviceReady)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {proxy_core})
        doors = {
            False: await stack.enter_async_context(FaultProxy(ready.service_port)),
            True: await stack.enter_async_context(FaultProxy(ready.colocated_port)),
        }
        bench = Bench(device, verifier, ready, doors, texts)
        began_s, began_busy_s = time.perf_counter(), time.process_time()
        for number in range(options.prompts):
            for kind in texts.prompts:
                await bench.measure(kind, number, options.tokens, options.rtt)
        elapsed_s = time.perf_counter() - began_s
        return Record(
            environment=f"{options.model} with {drafter.name}; {processor()}; Python {platform.python_version()}",
            cores=f"verifier on core {verifier_core}, device on {device_core}, proxy on {proxy_core}",
            rtts_ms=options.rtt,
            ways=WAYS,
            profile_ms=ready.pass_ms,
            cold=bench.cold,
            measured=bench.measured,
            traces=bench.traces,
            elapsed_s=elapsed_s,
            proxy_busy=(time.process_time() - began_busy_s) / elapsed_s,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_TARGET, help=f'a target on this machine, or "{COUNTING}" for none')
    parser.add_argument("--drafter", default="auto", help="as `outrider generate --drafter`")
    parser.add_argument("--prompts", type=int, default=2, help="of each kind")
    parser.add_argument("--tokens", type=int, default=80, help="of each answer, at most")
    parser.add_argument("--rtt", type=float, nargs="+", default=RTTS_MS, help="round trips, in milliseconds")
    parser.add_argument("--json", type=Path, help="keep every single figure")
    parser.add_argument("--traces", type=Path, help="keep what the drafter would have guessed, place by place")
    options = parser.parse_args(arguments)
    record = asyncio.run(run(options))
    is_exact = print_tables(record)
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(record), indent=1))
    if options.traces:
        options.traces.write_bytes(msgspec.json.encode(record.traces))
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
