"""`make bench-service`: what devices that draft save a verifier, and what the service itself costs.

One run, one engine, real WebSockets on loopback, the devices in a process of their own: eight plain sessions, then
eight that draft, on the same prompts; then many sessions on an engine that costs nothing, for the most messages a
second. Checks that both got the same tokens. Needs a quiet machine. `--json FILE` keeps the figures.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.counting_engine import CountingEngine
from benchmarks.devices import Job, Result
from benchmarks.prompts import code_prompts
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.server import create_server
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.target import open_verifier
from cloud_verifier.turn import PassReport
from cloud_verifier.verifier import Verifier
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.engines.machine import processor, resolve_threads
from outrider.tokens import TextCodec

MODEL = "qwen2.5-coder-1.5b-onnx"
COUNTING = "counting"
ROOT = Path(__file__).parent.parent
UNHURRIED = ServiceSettings(requests_per_s=1e6, messages_per_s=1e6)  # the limit that is looked for is another


class Stopwatch:
    """Hears of every pass, in the verifier's thread, as it ends."""

    def __init__(self) -> None:
        self.passes: list[tuple[float, PassReport]] = []

    def __call__(self, report: PassReport) -> None:
        self.passes.append((time.perf_counter(), report))

    def take(self) -> list[tuple[float, PassReport]]:
        taken, self.passes = self.passes, []
        return taken


@dataclass(frozen=True)
class Figures:
    """Of the passes that fill no cache: prompts cost both ways the same."""

    num_tokens: int
    num_passes: int
    num_rows: int
    verifier_s: float  # in the engine
    acceptance: float | None
    overhead: float | None  # share of a pass's cycle that is not the engine's; only where sessions are always ready

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.verifier_s if self.verifier_s else 0.0

    @property
    def passes_per_token(self) -> float:
        return self.num_passes / self.num_tokens if self.num_tokens else 0.0


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


@contextlib.contextmanager
def serving(loop: VerifierLoop, settings: ServiceSettings = UNHURRIED) -> Iterator[str]:
    """The service on a free loopback port, for as long as a block runs."""
    listener = socket.create_server(("127.0.0.1", 0))  # takes connections from now on; they wait for the server
    server = create_server(loop, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def start_devices(job: Job) -> Result:
    """Run the devices' process to its end. Raises CalledProcessError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.devices"],
        input=msgspec.json.encode(job),
        stdout=subprocess.PIPE,
        check=True,
        cwd=ROOT,
    )
    return msgspec.json.decode(done.stdout, type=Result)


@dataclass(frozen=True)
class Comparison:
    plain: Figures
    drafting: Figures
    is_same: bool


def compare(verifier: VerifierLoop, job: Job, warm_up: Job) -> Comparison:
    """The same prompts twice: nobody drafts, everybody drafts."""
    stopwatch = Stopwatch()
    verifier.verifier.on_pass.append(stopwatch)
    with serving(verifier) as url:
        start_devices(msgspec.structs.replace(warm_up, url=url, drafter="none"))
        stopwatch.take()
        plain = start_devices(msgspec.structs.replace(job, url=url, drafter="none"))
        alone = figures(stopwatch.take(), is_always_ready=True)
        drafting = start_devices(msgspec.structs.replace(job, url=url))
        together = figures(stopwatch.take(), is_always_ready=False)
    return Comparison(alone, together, plain.token_ids == drafting.token_ids)


@dataclass(frozen=True)
class Throughput:
    messages_per_s: float
    passes_per_s: float
    sessions_a_pass: float
    service_busy: float  # processor time over time: of the service's process,
    devices_busy: float  # and of the devices'; what is nearer 1 is the limit


def throughput(num_sessions: int, max_tokens: int) -> Throughput:
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
            result = start_devices(job)
            busy_s = time.process_time() - began_busy_s
    finally:
        loop.close()
    for prompt, token_ids in zip(prompts, result.token_ids, strict=True):
        if token_ids != [(prompt[-1] + step) % engine.n_vocab for step in range(1, max_tokens + 1)]:
            raise RuntimeError("a session was told other tokens than its own; do not trust these figures")
    passes = stopwatch.take()
    return Throughput(
        messages_per_s=result.num_messages / result.elapsed_s,
        passes_per_s=len(passes) / result.elapsed_s,
        sessions_a_pass=statistics.mean(report.num_sessions for _, report in passes),
        service_busy=busy_s / result.elapsed_s,
        devices_busy=result.busy_s / result.elapsed_s,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL, help=f'a target on this machine, or "{COUNTING}" for none')
    parser.add_argument("--drafter", default="lookup", help="as `outrider generate --drafter`")
    parser.add_argument("--prompts", type=int, default=8, help="HumanEval tasks")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--sessions", type=int, default=8, help="at once")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--streams", type=int, default=64, help="sessions of the run without a model")
    parser.add_argument("--stream-tokens", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    settings = EngineSettings(num_threads=options.threads, max_context=2048, max_sequences=options.sessions)

    comparison = with_model(options, settings)
    limit = throughput(options.streams, options.stream_tokens)
    print_tables(options, settings, comparison, limit)
    if options.json:
        record = {"environment": environment(options.model, settings), "messages": dataclasses.asdict(limit)}
        record |= {
            way: {
                **dataclasses.asdict(of),
                "tokens_per_s": of.tokens_per_s,
                "passes_per_token": of.passes_per_token,
            }
            for way, of in (("plain", comparison.plain), ("drafting", comparison.drafting))
        }
        options.json.write_text(json.dumps(record | {"is_same": comparison.is_same}, indent=1))
    return 0 if comparison.is_same else 1


def with_model(options: argparse.Namespace, settings: EngineSettings) -> Comparison:
    if options.model == COUNTING:
        engine = CountingEngine(options.sessions)
        prompts = [[number % engine.n_vocab] for number in range(options.prompts)]
        loop = VerifierLoop(Verifier(engine, target=COUNTING, vocabulary=""))
        job = Job("", options.drafter, options.sessions, prompts, options.max_tokens)
        try:
            return compare(loop, job, msgspec.structs.replace(job, prompts=prompts[:1]))
        finally:
            loop.close()
    folder = catalog.find(options.model)
    codec, manifest = TextCodec(folder), folder.manifest
    prompts = [codec.encode_chat([{"role": "user", "content": text}]) for text in code_prompts(options.prompts)]
    job = Job(
        "",
        options.drafter,
        options.sessions,
        prompts,
        options.max_tokens,
        stop_ids=list(manifest.stop_ids),
        vocabulary=manifest.tokenizer_fingerprint,
        target=folder.name,
    )
    target = open_verifier(folder, settings)
    try:
        return compare(target.loop, job, msgspec.structs.replace(job, prompts=prompts[:1], max_tokens=16))
    finally:
        target.close()


def environment(model: str, settings: EngineSettings) -> str:
    threads = resolve_threads(settings.num_threads)
    return f"{model}; {processor()}, {threads} threads; Python {platform.python_version()}"


def print_tables(
    options: argparse.Namespace, settings: EngineSettings, comparison: Comparison, limit: Throughput
) -> None:
    plain, drafting = comparison.plain, comparison.drafting
    print(f"{environment(options.model, settings)}; {options.prompts} HumanEval tasks, drafter {options.drafter}\n")
    print("| | passes per token | rows per token | tokens per second of verifier time | accepted |")
    print("|---|---|---|---|---|")
    for name, of in (("plain", plain), ("drafting", drafting)):
        accepted = "-" if of.acceptance is None else f"{of.acceptance:.0%}"
        rows = of.num_rows / of.num_tokens if of.num_tokens else 0.0
        print(
            f"| {options.sessions} sessions, {name} | {of.passes_per_token:.2f} | {rows:.2f} "
            f"| {of.tokens_per_s:.1f} | {accepted} |"
        )
    if drafting.num_passes and plain.verifier_s and drafting.verifier_s:
        print(
            f"\n{plain.passes_per_token / drafting.passes_per_token:.1f}x fewer passes per token, "
            f"{drafting.tokens_per_s / plain.tokens_per_s:.2f}x the tokens per second of verifier time."
        )
    print(f"Same tokens both ways: {'yes' if comparison.is_same else 'NO'}.")
    if plain.overhead is not None:
        cycle_ms = 1000 * plain.verifier_s / plain.num_passes / (1 - plain.overhead)
        print(f"The service takes {plain.overhead:.1%} of a pass's cycle of {cycle_ms:.2f} ms, the engine the rest.")
    print(
        f"Without a model, {options.streams} sessions: {limit.messages_per_s:.0f} messages a second, "
        f"{limit.passes_per_s:.0f} passes a second of {limit.sessions_a_pass:.1f} sessions; "
        f"busy: service {limit.service_busy:.0%}, devices {limit.devices_busy:.0%} of a core."
    )


if __name__ == "__main__":
    sys.exit(main())
