"""`make bench`: target alone against the local pair with each drafter, interleaved, in one process.

Prints a table of medians over the prompts, as ratios to the fastest way to run the target alone, and checks in the same
run that every pair said what the target says. Needs a quiet machine. `--json FILE` keeps every single figure.
"""

import argparse
import asyncio
import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prompts import chat_prompts, code_prompts
from cloud_verifier.target import LocalVerifier, open_verifier
from edge_runtime.drafters import Drafter
from edge_runtime.events import Finished
from edge_runtime.links import InProcessLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import DEFAULT_TARGET, open_drafter
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.engines import Chunk, Engine, EngineSettings, open_engine
from outrider.engines.machine import processor, resolve_threads
from outrider.manifest import ModelFolder
from outrider.tokens import TextCodec

SETTINGS = EngineSettings(max_context=1024)
PAUSE_S = 0.3  # the engines' idle threads stop spinning
GGUF_TARGETS = {
    "target alone, llama.cpp Q4_K_M, its fastest kernels": "qwen2.5-coder-1.5b-instruct",
    "target alone, llama.cpp Q4_0, its fastest kernels": "qwen2.5-coder-1.5b-q4_0",
}
DRAFTERS = {
    "pair, prompt lookup": "lookup",
    "pair, 0.5B": "qwen2.5-coder-0.5b-onnx",
    "pair, 0.5B trimmed": "qwen2.5-coder-0.5b-onnx-trim",
    "pair, lookup then 0.5B trimmed (default)": "auto",
}


@dataclass(frozen=True)
class Run:
    token_ids: list[int]
    tokens_per_s: float
    tokens_per_pass: float = 1.0
    acceptance: float | None = None


def greedy_alone(engine: Engine, stop_ids: list[int], prompt: list[int], max_tokens: int) -> Run:
    """One token a pass, on the engine as it is."""
    sequence = engine.allocate()
    try:
        token_ids = [int(engine.extend([Chunk(sequence, prompt)])[0][-1].argmax())]
        began_s = time.perf_counter()
        while len(token_ids) < max_tokens and token_ids[-1] not in stop_ids:
            token_ids.append(int(engine.extend([Chunk(sequence, token_ids[-1:])])[0][-1].argmax()))
        return Run(token_ids, (len(token_ids) - 1) / (time.perf_counter() - began_s))
    finally:
        engine.release(sequence)


class Pair:
    """The verifier with one drafter. The pace lives on from prompt to prompt, as in a running app."""

    def __init__(self, verifier: LocalVerifier, drafter: Drafter | None, folder: ModelFolder) -> None:
        self._verifier, self._drafter, self._manifest = verifier, drafter, folder.manifest
        self._pace = Pace(verifier.pass_ms)

    def __call__(self, prompt: list[int], max_tokens: int) -> Run:
        manifest = self._manifest
        request = GenerationRequest(
            prompt, max_tokens, stop_ids=manifest.stop_ids, vocabulary=manifest.tokenizer_fingerprint
        )
        token_ids: list[int] = []

        async def run() -> Finished:
            with ThreadPoolExecutor(1) as executor:
                session = Session(InProcessLink(self._verifier.loop), self._drafter, self._pace, executor)
                async for event in session.generate(request):
                    if isinstance(event, Finished):
                        return event
                    token_ids.append(event.token_id)
            raise RuntimeError("the session ended without its report")

        report = asyncio.run(run()).report
        return Run(token_ids, report.tokens_per_s, report.tokens_per_pass, report.acceptance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=4, help="prompts of each kind")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = EngineSettings(num_threads=options.threads, max_context=SETTINGS.max_context)

    folder = catalog.find(DEFAULT_TARGET)
    codec = TextCodec(folder)
    stop_ids = folder.manifest.stop_ids
    fastest = dataclasses.replace(settings, has_exact_kernels=False)
    ggufs = {way: open_engine(catalog.find(name), fastest) for way, name in GGUF_TARGETS.items()}
    plain = open_engine(folder, settings)
    verifier = open_verifier(folder, settings)
    ways: dict[str, Callable[[list[int], int], Run]] = {
        way: functools.partial(greedy_alone, engine, stop_ids) for way, engine in ggufs.items()
    }
    ways |= {
        "target alone, ONNX int4, passes of one": functools.partial(greedy_alone, plain, stop_ids),
        "target alone, ONNX int4, in its class": Pair(verifier, None, folder),
    }
    drafters = {way: open_drafter(name, folder, settings) for way, name in DRAFTERS.items()}
    ways |= {way: Pair(verifier, drafter, folder) for way, drafter in drafters.items()}

    prompts = {"code": code_prompts(options.prompts), "chat": chat_prompts(options.prompts)}
    runs: dict[str, dict[str, list[Run]]] = {kind: {way: [] for way in ways} for kind in prompts}
    for kind, texts in prompts.items():
        for number, text in enumerate(texts):
            prompt = codec.encode_chat([{"role": "user", "content": text}])
            for way, generate in ways.items():
                time.sleep(PAUSE_S)
                if number == 0:
                    generate(prompt, 16)  # warm up
                runs[kind][way].append(generate(prompt, options.max_tokens))
                print(f"{kind} {number + 1}/{len(texts)}  {way}", file=sys.stderr)

    is_exact = print_table(runs, settings)
    if options.json:
        record = {
            kind: {way: [vars(run) for run in each] for way, each in by_way.items()} for kind, by_way in runs.items()
        }
        options.json.write_text(json.dumps(record))
    verifier.close()
    for drafter in drafters.values():
        if drafter is not None:
            drafter.close()
    return 0 if is_exact else 1


def print_table(runs: dict[str, dict[str, list[Run]]], settings: EngineSettings) -> bool:
    """The table of README, and whether every pair's tokens were the target's."""
    alone = [way for way in next(iter(runs.values())) if way.startswith("target alone")]
    speeds = {
        kind: {way: statistics.median(run.tokens_per_s for run in each) for way, each in by_way.items()}
        for kind, by_way in runs.items()
    }
    best = {kind: max(speeds[kind][way] for way in alone) for kind in runs}
    print(f"{processor()}, {resolve_threads(settings.num_threads)} threads")
    print("\n| | code: speed | tokens a pass | accepted | chat: speed | tokens a pass | accepted |")
    print("|---|---|---|---|---|---|---|")
    is_exact = True
    reference = alone[-1]
    for way in speeds["code"]:
        cells = []
        for kind, by_way in runs.items():
            each = by_way[way]
            per_pass = statistics.mean(run.tokens_per_pass for run in each)
            accepted = [run.acceptance for run in each if run.acceptance is not None]
            share = f"{statistics.mean(accepted):.0%}" if accepted and way not in alone else "-"
            cells += [f"{speeds[kind][way] / best[kind]:.2f}x", f"{per_pass:.1f}", share]
            if way not in alone:
                pairs = zip(each, by_way[reference], strict=True)
                is_exact = is_exact and all(run.token_ids == other.token_ids for run, other in pairs)
        print(f"| {way} | " + " | ".join(cells) + " |")
    absolute = ", ".join(f"{best[kind]:.1f} tokens/s on {kind}" for kind in runs)
    print(f"\n1.00x is the fastest target alone: {absolute}.")
    count = sum(len(each) for by_way in runs.values() for way, each in by_way.items() if way not in alone)
    print(f"Output equal to the target's alone in all {count} runs of a pair: {'yes' if is_exact else 'NO'}.")
    return is_exact


if __name__ == "__main__":
    sys.exit(main())
