"""Counts of fixed work: passes, drafts and bytes, on which no machine's speed bears; the JSON says what they were.

    python -m tests.benchmarks.counts            # what they are, and how they differ from what is written
    python -m tests.benchmarks.counts --write    # write them down; with --weights too, those of the real model

The product in turns: real drafters, session, links and verifier, over the toy or a small real model, with a pace that
is told how long things take instead of looking at the clock. And the simulation: the rules for drafting ahead and for
many devices, on a clock of their own.
"""

import asyncio
import json
import random
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.loads import KINDS, measure
from benchmarks.machines import find_machine
from benchmarks.simulation import Link, Result, bursts, repeating, simulate
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.events import Finished
from edge_runtime.links import InProcessLink, WebSocketLink
from edge_runtime.links.base import Link as RealLink
from edge_runtime.pacing import Pace
from edge_runtime.report import Report
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings, open_engine
from outrider.engines.base import Logits
from outrider.tokens import TextCodec
from outrider.worth import PassCost
from tests.serving import serving
from tests.toy import ToyEngine

FILE = Path(__file__).parent / "counts.json"
WEIGHTS_FILE = Path(__file__).parent / "counts_weights.json"
WRITE = "python -m tests.benchmarks.counts --write"
SAME = 0.002  # relative: another library's logarithm may tip one choice in a thousand, hardly more
PASSES, DRAFTED, UP, DOWN = "passes a token", "drafts per accepted one", "bytes up a token", "bytes down a token"
ROWS = "rows a token"
PASS_MS = {rows: 40 + 8.0 * (rows - 1) for rows in range(1, 33)}
DRAFT_MS = 12.0
MAX_TOKENS = 120
TEMPERATURES = (0.0, 0.0, 0.6)  # a prompt each

MODEL = "smollm2-135m-instruct"
SAME_WEIGHTS = 0.1  # another processor may tip a near-tie, and the text goes on differently

Counts = dict[str, float]
Counted = Generator[tuple[str, Counts], None, None]
Work = Callable[[], Counted]


class ToldPace(Pace):
    """The product's own, on a clock that says what passes and drafts should take."""

    def __init__(self) -> None:
        super().__init__(PASS_MS)
        self._num_made = 0

    def observe_draft(self, source: str, elapsed_ms: float) -> None:
        self._num_made += 1
        super().observe_draft(source, DRAFT_MS)

    def observe(
        self, checked: Sequence[tuple[str, float]], num_accepted: int, num_tokens: int, elapsed_ms: float | None
    ) -> None:
        told_ms = PASS_MS[min(32, 1 + len(checked))] + DRAFT_MS * self._num_made
        self._num_made = 0
        super().observe(checked, num_accepted, num_tokens, told_ms if elapsed_ms is not None else None)


class RoughToy(ToyEngine):
    """Agrees with the toy of its seed but after one token in four."""

    def _row(self, cache: list[tuple[int, int]]) -> Logits:
        row = super()._row(cache)
        return row[::-1].copy() if cache[-1][0] % 4 == 0 else row


def toy() -> ToyEngine:
    return ToyEngine(n_vocab=24, seed=5)


def rough() -> Drafter:
    return ModelDrafter(RoughToy(n_vocab=24, seed=5), name="model")


DRAFTERS: dict[str, Callable[[], Drafter | None]] = {
    "nobody": lambda: None,
    "lookup": LookupDrafter,
    "model": rough,
    "cascade": lambda: CascadeDrafter(LookupDrafter(), rough()),
}


LINKS = {  # by drafter; a regression is told by the first that shows it
    "model": ["in process"],
    "cascade": ["websocket", "in process", "websocket, padded"],
    "lookup": ["in process"],
    "nobody": ["websocket"],
}


def total(reports: Sequence[Report]) -> Counts:
    tokens = sum(report.num_tokens for report in reports)
    accepted = sum(report.num_accepted for report in reports)
    return {
        PASSES: sum(report.num_passes for report in reports) / tokens,
        DRAFTED: sum(report.num_drafted for report in reports) / accepted if accepted else 0.0,
        UP: sum(report.bytes_up for report in reports) / tokens,
        DOWN: sum(report.bytes_down for report in reports) / tokens,
    }


async def generate(
    drafter: Drafter | None, open_link: Callable[[], RealLink], request: GenerationRequest, **options: int
) -> Report:
    with ThreadPoolExecutor(1) as executor:
        session = Session(open_link(), drafter, ToldPace(), executor, **options)
        async for event in session.generate(request):
            if isinstance(event, Finished):
                return event.report
    raise AssertionError("the answer did not end")


@contextmanager
def still(verifier: Verifier) -> Iterator[VerifierLoop]:
    loop = VerifierLoop(verifier)
    try:
        yield loop
    finally:
        loop.close()


def in_turns() -> Counted:
    """Every drafter, and every link: under the cascade, whose turns are of every kind."""
    verifier = Verifier(toy(), target="toy", vocabulary="v", pass_ms=PASS_MS, clock=lambda: 0.0)
    requests = [
        GenerationRequest([seed + 1, 2, seed + 3], MAX_TOKENS, SamplingParams(temperature=heat, seed=seed))
        for seed, heat in enumerate(TEMPERATURES)
    ]
    with still(verifier) as loop, serving(loop) as url:
        links: dict[str, Callable[[], RealLink]] = {
            "in process": lambda: InProcessLink(loop),
            "websocket": lambda: WebSocketLink(url, is_padded=False),
            "websocket, padded": lambda: WebSocketLink(url),
        }
        for name, over in LINKS.items():
            for link in over:
                reports = [asyncio.run(generate(DRAFTERS[name](), links[link], request)) for request in requests]
                yield f"in turns, {name}, {link}", total(reports)


def _counted(result: Result) -> Counts:
    return {
        PASSES: result.num_passes / result.num_tokens,
        DRAFTED: result.num_drafted / result.num_accepted if result.num_accepted else 0.0,
        UP: result.bytes_up / result.num_tokens,
        DOWN: result.bytes_down / result.num_tokens,
    }


def ahead() -> Counted:
    """Drafting ahead, and the verifier's own drafts, over links of several lengths."""
    machines = {"core": PassCost(PASS_MS), "gpu": PassCost({rows: 25 + 0.1 * rows for rows in range(1, 33)})}
    for machine, cost in machines.items():
        for kind in KINDS.values():
            text = bursts(250, kind.acceptance, kind.mean_run, random.Random(11))
            for rtt_ms in (0, 50, 300):
                found = simulate(text, Link(rtt_ms), cost, DRAFT_MS)
                yield f"ahead, {machine}, {kind.name}, RTT {rtt_ms}", _counted(found)
            own = simulate(repeating(text, 30, 4, random.Random(12)), Link(50), cost, DRAFT_MS, self_drafts=True)
            yield f"ahead, {machine}, {kind.name}, RTT 50, own drafts", _counted(own)


def many() -> Counted:
    """Twenty devices on one verifier."""
    for machine in ("core", "h200-32b"):
        for kind in KINDS.values():
            load = measure(find_machine(machine), "ahead", kind, 20, 30.0, num_tokens=30)
            yield (
                f"20 devices, {machine}, {kind.name}",
                {
                    PASSES: load.turns_per_token,
                    "rows a token": load.rows_per_token,
                    UP: load.bytes_up,
                    DOWN: load.bytes_down,
                },
            )


def on_weights() -> Counted:
    """A small real model that repeats what it was given, and drafts looked up in its text."""
    folder = catalog.find(MODEL)
    codec = TextCodec(folder)
    text = "Repeat this list three times, nothing else: red apple, green pear, yellow plum, blue grape, black cherry."
    prompt = codec.encode_chat([{"role": "user", "content": text}])
    engine = open_engine(folder, EngineSettings(num_threads=1, max_context=512, max_sequences=1))
    try:
        with still(Verifier(engine, target="t", vocabulary="v", pass_ms=PASS_MS, clock=lambda: 0.0)) as loop:
            for name in ("nobody", "lookup"):
                request = GenerationRequest(prompt, 48)
                report = asyncio.run(generate(DRAFTERS[name](), lambda: InProcessLink(loop), request))
                yield f"{MODEL}, {name}", total([report])
    finally:
        engine.close()


def measured(*works: Work) -> dict[str, Counts]:
    found = {name: counts for work in works for name, counts in work()}
    return {name: {what: round(count, 4) for what, count in counts.items()} for name, counts in found.items()}


def judge(expected: dict[str, Counts], found: dict[str, Counts], same: float = SAME) -> list[str]:
    """A sentence for each count that is not what is written: lower is better, and either way somebody must look."""
    if expected.keys() != found.keys():
        return [f"the work that is counted has changed ({expected.keys() ^ found.keys()}); write it down: {WRITE}"]
    sentences = []
    for name, counts in found.items():
        for what, count in counts.items():
            known = expected[name][what]
            told = f"{name}: {count:g} {what}, {known:g} is written"
            if count > known * (1 + same):
                more = f", {count / known - 1:.1%} more" if known else ""
                sentences.append(f"worse, {told}{more}; find out why")
            elif count < known * (1 - same):
                sentences.append(f"better, {told}, {1 - count / known:.1%} fewer; write it down: {WRITE}")
    return sentences


def written(file: Path = FILE) -> dict[str, Counts]:
    found: dict[str, Counts] = json.loads(file.read_text())
    return found


def main(arguments: Sequence[str]) -> int:
    is_real = "--weights" in arguments
    file, same = (WEIGHTS_FILE, SAME_WEIGHTS) if is_real else (FILE, SAME)
    found = measured(on_weights) if is_real else measured(*WORKS)
    if "--write" in arguments:
        file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    print(json.dumps(found, indent=1))
    sentences = judge(written(file), found, same)
    print("\n".join(sentences), file=sys.stderr)
    return 1 if sentences else 0


WORKS = (in_turns, ahead, many)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
