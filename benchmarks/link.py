"""Suite `link`: a device and a verifier, a core each, and a link between them that takes its time.

Four ways to the same tokens, in turns for each prompt and round trip: the target alone, streamed; drafting on the
device in turns; the same drafter beside the target; drafting ahead. All are heard over a real WebSocket through the
same delaying proxy.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec

from benchmarks.fault_proxy import FaultProxy, Toxics
from benchmarks.link_device import Generation, Heard, Tracing
from benchmarks.link_device import Ready as DeviceReady
from benchmarks.link_device import Setup as DeviceSetup
from benchmarks.link_record import AHEAD, ALONE, COLOCATED, TURNS, WAYS, Details, More
from benchmarks.link_verifier import Ready, Setup, Take, Taken
from benchmarks.measuring import measuring
from benchmarks.options import COUNTING, LinkOptions
from benchmarks.order import rotated
from benchmarks.pinned import Pinned, cores
from benchmarks.prompts import select
from benchmarks.record import Result, Run
from benchmarks.traces import Trace
from benchmarks.turns import best_length
from outrider import catalog
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec
from outrider.worth import PassCost

__all__ = ["run"]

COLD_TOKENS = 4


@dataclass(frozen=True)
class Texts:
    """What is asked, by kind and the prompt's id, and what a device tells with it."""

    prompts: dict[str, dict[str, list[int]]]
    stop_ids: list[int]
    vocabulary: str


class Bench:
    """The two processes, the proxies between them, and what was measured so far."""

    def __init__(
        self,
        options: LinkOptions,
        device: Pinned,
        verifier: Pinned,
        ready: Ready,
        doors: dict[bool, FaultProxy],
        texts: Texts,
    ) -> None:
        self._options, self._device, self._verifier, self._ready = options, device, verifier, ready
        self._doors = doors  # by whether drafting is beside the target
        self._texts = texts
        self._turn = 0
        self.runs: list[Run] = []
        self.warm_ups: list[Run] = []
        self.cold_s: dict[str, dict[str, list[float]]] = {kind: {} for kind in texts.prompts}
        self.traces: dict[str, list[Trace]] = {kind: [] for kind in texts.prompts}

    async def measure(self, kind: str, number: int, progress: Progress) -> None:
        """One prompt: all ways at all round trips; before that, how long a prompt takes that nobody has seen."""
        name, prompt = list(self._texts.prompts[kind].items())[number]
        for way in WAYS:
            num_drafts = {TURNS: 1, AHEAD: -1}.get(way.name, 0)
            heard, _ = await self._generate(way.name, prompt, COLD_TOKENS, 0.0, num_drafts, is_cold=True)
            self.cold_s[kind].setdefault(way.name, []).append(heard.answer.first_s)
        heard, _ = await self._generate(ALONE, prompt, self._options.max_tokens, 0.0, 0)
        self.warm_ups.append(Run.of(heard.answer, kind, name, ALONE, rtt_ms=0.0))
        trace = await self._device.ask(Tracing(prompt, heard.answer.token_ids), Trace)
        self.traces[kind].append(trace)
        pass_ms = PassCost(self._ready.pass_ms)
        rtts_ms = self._options.rtts_ms
        for done, rtt_ms in enumerate(rtts_ms):
            progress(f"{kind} {number + 1}", done, len(rtts_ms))
            for way in rotated(WAYS, self._turn):
                num_drafts = {AHEAD: -1}.get(way.name, 0)
                if way.name == TURNS:
                    num_drafts = best_length(trace.text(), rtt_ms, pass_ms, trace.draft_ms)
                heard, taken = await self._generate(way.name, prompt, self._options.max_tokens, rtt_ms, num_drafts)
                more = More(
                    num_drafts=num_drafts,
                    wire=heard.wire,
                    num_guesses=heard.num_guesses,
                    drafting_ms=heard.drafting_ms,
                    rows=taken.rows,
                    pass_ms=taken.pass_ms,
                    busy_s=taken.busy_s,
                )
                told = msgspec.to_builtins(more)
                self.runs.append(Run.of(heard.answer, kind, name, way.name, rtt_ms=rtt_ms, more=told))
            self._turn += 1
        progress(f"{kind} {number + 1}", len(rtts_ms), len(rtts_ms))

    async def _generate(
        self, way: str, prompt: list[int], max_tokens: int, rtt_ms: float, num_drafts: int, *, is_cold: bool = False
    ) -> tuple[Heard, Taken]:
        proxy = self._doors[way == COLOCATED]
        kbit_per_s = self._options.kbit_per_s
        toxics = Toxics(latency_s=rtt_ms / 2000)
        if kbit_per_s > 0:
            toxics = Toxics(latency_s=rtt_ms / 2000, bandwidth=kbit_per_s * 125)
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
        heard = await self._device.ask(job, Heard)
        return heard, await self._verifier.ask(Take(), Taken)


def read_texts(options: LinkOptions) -> Texts:
    """Raises what `select` and `catalog.find` do."""
    if options.target == COUNTING:
        count = options.prompts.count
        numbers = {"code": [[n, n + 1] for n in range(count)], "chat": [[n + 9] for n in range(count)]}
        return Texts(
            {kind: {f"{kind}/{n}": ids for n, ids in enumerate(each)} for kind, each in numbers.items()}, [], ""
        )
    chosen = select(options.prompts)
    folder = catalog.find(options.target)
    codec = TextCodec(folder)
    prompts = {
        kind: {prompt.id: codec.encode_chat([{"role": "user", "content": prompt.text}]) for prompt in each}
        for kind, each in chosen.items()
    }
    return Texts(prompts, list(folder.manifest.stop_ids), folder.manifest.tokenizer_fingerprint)


def run(options: LinkOptions, command: Sequence[str], progress: Progress = silent) -> Result:
    with measuring("link", options, command, options.threads) as result:
        result.ways = WAYS
        asyncio.run(_fill(result, options, progress))
    return result


async def _fill(result: Result, options: LinkOptions, progress: Progress) -> None:
    texts = read_texts(options)
    verifier_core, device_core, proxy_core = cores(3)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    async with AsyncExitStack() as stack:
        progress("loading", 0, 0)
        verifier = await stack.enter_async_context(Pinned("benchmarks.link_verifier", verifier_core))
        device = await stack.enter_async_context(Pinned("benchmarks.link_device", device_core))
        names = [way.name for way in WAYS]
        ready = await verifier.ask(Setup(options.target, options.drafter, names, options.threads), Ready)
        drafter = await device.ask(DeviceSetup(options.target, options.drafter, options.threads), DeviceReady)
        if usable:
            os.sched_setaffinity(0, {proxy_core})
            stack.callback(os.sched_setaffinity, 0, usable)
        doors = {
            False: await stack.enter_async_context(FaultProxy(ready.service_port)),
            True: await stack.enter_async_context(FaultProxy(ready.colocated_port)),
        }
        bench = Bench(options, device, verifier, ready, doors, texts)
        asked_s, asked_busy_s = time.perf_counter(), time.process_time()
        for number in range(max(map(len, texts.prompts.values()))):
            for kind, prompts in texts.prompts.items():
                if number < len(prompts):
                    await bench.measure(kind, number, progress)
        proxy_busy = (time.process_time() - asked_busy_s) / (time.perf_counter() - asked_s)
    details = Details(
        drafter=drafter.name,
        cores=f"verifier on core {verifier_core}, device on {device_core}, proxy on {proxy_core}",
        profile_ms=ready.pass_ms,
        cold_s=bench.cold_s,
        traces=bench.traces,
        proxy_busy=proxy_busy,
    )
    result.runs, result.warm_ups = bench.runs, bench.warm_ups
    result.profiles = {options.target: ready.pass_ms}
    result.details = msgspec.to_builtins(details, str_keys=True)
