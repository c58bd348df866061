"""Suite `service`: what devices that draft save a verifier, how many it can serve, and what the service itself costs.

One engine, real WebSockets on loopback, the devices in a process of their own: so many plain sessions at once, as many
that draft, on the same prompts; then many sessions on an engine that costs nothing, for the most messages a second.
"""

import itertools
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import msgspec

from benchmarks import pinned
from benchmarks.counting_engine import CountingEngine
from benchmarks.devices import Heard, Job
from benchmarks.measuring import measuring
from benchmarks.options import COUNTING, ServiceOptions
from benchmarks.order import rotated
from benchmarks.prompts import select
from benchmarks.record import Answer, Result, Run, Way
from benchmarks.service_record import DRAFTING, PLAIN, Details, Figures, Measured, Throughput
from benchmarks.serving import serving
from benchmarks.ways import profiles
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.target import open_verifier
from cloud_verifier.turn import PassReport
from cloud_verifier.verifier import Verifier
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["Stopwatch", "run"]


class Stopwatch:
    """Hears of every pass, in the verifier's thread, as it ends."""

    def __init__(self) -> None:
        self.passes: list[tuple[float, PassReport]] = []

    def __call__(self, report: PassReport) -> None:
        self.passes.append((time.perf_counter(), report))

    def take(self) -> list[tuple[float, PassReport]]:
        taken, self.passes = self.passes, []
        return taken


def figures(passes: Sequence[tuple[float, PassReport]], *, is_always_ready: bool) -> Figures:
    decoding = [report for _, report in passes if not report.num_filled]
    drafted = sum(sum(report.drafted) for report in decoding)
    cycle_s = engine_s = 0.0
    for (before_s, _), (ended_s, report) in itertools.pairwise(passes):
        if not report.num_filled:
            cycle_s += ended_s - before_s  # from the end of a pass to the end of the next
            engine_s += report.elapsed_s
    return Figures(
        num_tokens=sum(sum(report.emitted) for report in decoding),
        num_passes=len(decoding),
        num_rows=sum(report.num_rows for report in decoding),
        verifier_s=sum(report.elapsed_s for report in decoding),
        acceptance=sum(sum(report.accepted) for report in decoding) / drafted if drafted else None,
        overhead=1 - engine_s / cycle_s if is_always_ready and cycle_s else None,
    )


class Devices:
    """The devices' process, for as long as a block runs; it takes one job after the other."""

    def __enter__(self) -> Self:
        self._process = pinned.start("benchmarks.devices")
        return self

    def __exit__(self, *_: object) -> None:
        pinned.end(self._process)

    def run(self, job: Job) -> Heard:
        """Raises what `pinned.ask` does."""
        return pinned.ask(self._process, job, Heard, "the devices' process")


@dataclass(frozen=True)
class _Comparison:
    measured: list[Measured]
    answers: list[tuple[str, int, list[Answer]]]  # way, sessions at once, what each prompt was answered with


def compare(
    devices: Devices, verifier: VerifierLoop, job: Job, sessions: Sequence[int], progress: Progress
) -> _Comparison:
    """The same prompts for each number of sessions twice: nobody drafts, everybody drafts; who comes first changes."""
    stopwatch = Stopwatch()
    verifier.verifier.on_pass.append(stopwatch)
    found = _Comparison([], [])
    with serving(verifier) as url:
        job = msgspec.structs.replace(job, url=url)
        warm_up = msgspec.structs.replace(job, prompts=job.prompts[:1], drafter="none")
        devices.run(warm_up)
        stopwatch.take()
        for turn, num_sessions in enumerate(sessions):
            for number, (way, drafter) in enumerate(rotated([(PLAIN, "none"), (DRAFTING, job.drafter)], turn)):
                progress("sessions", 2 * turn + number, 2 * len(sessions))
                heard = devices.run(msgspec.structs.replace(job, drafter=drafter, num_sessions=num_sessions))
                passes = figures(stopwatch.take(), is_always_ready=way == PLAIN)
                found.measured.append(Measured(way=way, num_sessions=num_sessions, figures=passes))
                found.answers.append((way, num_sessions, heard.answers))
        progress("sessions", 2 * len(sessions), 2 * len(sessions))
    return found


def throughput(devices: Devices, num_sessions: int, max_tokens: int) -> Throughput:
    """Messages both ways a second, with an engine that costs nothing and devices that always know."""
    engine = CountingEngine(num_sessions)
    loop = VerifierLoop(Verifier(engine, target="counting", vocabulary=""))
    stopwatch = Stopwatch()
    loop.verifier.on_pass.append(stopwatch)
    prompts = [[number % engine.n_vocab] * 4 for number in range(num_sessions)]
    try:
        with serving(loop) as url:
            job = Job(url, COUNTING, num_sessions, prompts, max_tokens, num_vocab=engine.n_vocab)
            began_busy_s = time.process_time()
            result = devices.run(job)
            busy_s = time.process_time() - began_busy_s
    finally:
        loop.close()
    for prompt, answer in zip(prompts, result.answers, strict=True):
        if answer.token_ids != [(prompt[-1] + step) % engine.n_vocab for step in range(1, max_tokens + 1)]:
            raise RuntimeError("a session was told other tokens than its own; do not trust these figures")
    passes = stopwatch.take()
    return Throughput(
        messages_per_s=result.num_messages / result.elapsed_s,
        passes_per_s=len(passes) / result.elapsed_s,
        sessions_a_pass=statistics.mean(report.num_sessions for _, report in passes),
        service_busy=busy_s / result.elapsed_s,
        devices_busy=result.busy_s / result.elapsed_s,
    )


def run(options: ServiceOptions, command: Sequence[str], progress: Progress = silent) -> Result:
    """Raises what `select`, `catalog.find` and the devices' process do."""
    with measuring("service", options, command, options.threads) as result:
        with ExitStack() as outer:
            with ExitStack() as stack:
                progress("loading", 0, 0)
                loop, job, names = _open(options, stack)
                if (most := max(options.sessions)) > len(names):
                    raise InvalidParameter(
                        f"{most} devices need as many prompts, and there are {len(names)}; raise --count"
                    )
                devices = outer.enter_context(Devices())
                comparison = compare(devices, loop, job, options.sessions, progress)
            progress("without a model", 0, 0)
            limit = throughput(devices, options.num_streams, options.stream_tokens)
        result.ways = [
            Way(name=PLAIN, role="alone"),
            Way(name=DRAFTING, role="ours", note=f"drafter {options.drafter}", equals=PLAIN),
        ]
        result.runs = [
            Run.of(answer, kind, name, way, num_sessions=num_sessions)
            for way, num_sessions, answers in comparison.answers
            for (kind, name), answer in zip(names, answers, strict=True)
        ]
        result.profiles = profiles([options.target])
        result.details = msgspec.to_builtins(Details(measured=comparison.measured, limit=limit))
    return result


def _open(options: ServiceOptions, stack: ExitStack) -> tuple[VerifierLoop, Job, list[tuple[str, str]]]:
    """The target running, what the devices are to do, and each prompt's kind and id."""
    if options.target == COUNTING:
        engine = CountingEngine(max(options.sessions))
        prompts = [[number % engine.n_vocab] for number in range(options.prompts.count)]
        loop = VerifierLoop(Verifier(engine, target=COUNTING, vocabulary=""))
        stack.callback(loop.close)
        names = [("counting", f"counting/{number}") for number in range(len(prompts))]
        return loop, Job("", options.drafter, 1, prompts, options.max_tokens), names
    chosen = [prompt for each in select(options.prompts).values() for prompt in each]
    folder = catalog.find(options.target)
    codec, manifest = TextCodec(folder), folder.manifest
    settings = EngineSettings(num_threads=options.threads, max_context=2048, max_sequences=max(options.sessions))
    target = open_verifier(folder, settings)
    stack.callback(target.close)
    job = Job(
        "",
        options.drafter,
        1,
        [codec.encode_chat([{"role": "user", "content": prompt.text}]) for prompt in chosen],
        options.max_tokens,
        stop_ids=list(manifest.stop_ids),
        vocabulary=manifest.tokenizer_fingerprint,
        target=str(folder.path),
    )
    return target.loop, job, [(prompt.kind, prompt.id) for prompt in chosen]
