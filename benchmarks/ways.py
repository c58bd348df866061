"""The ways that `pair` compares, each as something that answers a prompt: ours in this process, peers in theirs.

A way is opened with one of its settings and closed again; ours stay loaded all the time, a peer only while it answers.
Knows nothing of prompts' texts, of orders and of tables.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass

from benchmarks.peers.base import Peer
from benchmarks.record import Answer, Missing, Way
from cloud_verifier.target import LocalVerifier, open_verifier
from edge_runtime.drafters import Drafter
from edge_runtime.events import Token
from edge_runtime.links import InProcessLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import open_drafter
from edge_runtime.report import Report
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.engines import Chunk, Engine, EngineSettings, open_engine
from outrider.engines.fastest import fastest
from outrider.errors import InvalidParameter, NotHere, OutriderError
from outrider.manifest import ModelFolder

__all__ = ["IN_CLASS", "Contender", "Generate", "our_ways", "peer_ways", "profiles"]

Generate = Callable[[Sequence[int], int], Answer]
IN_CLASS = "target alone, in its class"


@dataclass(frozen=True)
class Contender:
    way: Way
    settings: Sequence[str]
    open: Callable[[str], AbstractContextManager[Generate]]


def greedy_alone(engine: Engine, stop_ids: Sequence[int], prompt: Sequence[int], max_tokens: int) -> Answer:
    """One token a pass, on the engine as it is."""
    sequence = engine.allocate()
    try:
        asked_s = time.perf_counter()
        token_ids = [int(engine.extend([Chunk(sequence, prompt)])[0][-1].argmax())]
        began_s = time.perf_counter()
        while len(token_ids) < max_tokens and token_ids[-1] not in stop_ids:
            token_ids.append(int(engine.extend([Chunk(sequence, token_ids[-1:])])[0][-1].argmax()))
        ended_s = time.perf_counter()
    finally:
        engine.release(sequence)
    passes = len(token_ids)
    return Answer(token_ids=token_ids, seconds=ended_s - began_s, first_s=began_s - asked_s, passes=passes)


class Pair:
    """The verifier with one drafter. What drafts cost is known from prompt to prompt, as in a running app."""

    def __init__(self, verifier: LocalVerifier, drafter: Drafter | None, folder: ModelFolder) -> None:
        self._verifier, self._drafter, self._manifest = verifier, drafter, folder.manifest
        self._pace = Pace(verifier.pass_ms)

    def __call__(self, prompt: Sequence[int], max_tokens: int) -> Answer:
        manifest = self._manifest
        request = GenerationRequest(
            prompt, max_tokens, stop_ids=manifest.stop_ids, vocabulary=manifest.tokenizer_fingerprint
        )
        token_ids: list[int] = []

        async def run() -> Report:
            with ThreadPoolExecutor(1) as executor:
                session = Session(InProcessLink(self._verifier.loop), self._drafter, self._pace, executor)
                async for event in session.generate(request):
                    if isinstance(event, Token):
                        token_ids.append(event.token_id)
                return session.report

        return Answer.of(token_ids, asyncio.run(run()))


def our_ways(
    folder: ModelFolder, drafters: Sequence[str], also: Sequence[str], settings: EngineSettings, stack: ExitStack
) -> tuple[list[Contender], list[Missing]]:
    """The target alone, as it is and in its numerics class, other files of it (`also`), and the pair with each drafter.

    Everything is loaded now and closed with `stack`. Also what is not here.
    """
    contenders: list[Contender] = []
    missing: list[Missing] = []
    stop_ids = folder.manifest.stop_ids

    def add(way: Way, generate: Generate) -> None:
        contenders.append(Contender(way, [""], lambda setting: nullcontext(generate)))

    def alone(name: str, of: ModelFolder, with_settings: EngineSettings, note: str = "") -> None:
        engine = stack.enter_context(closing(open_engine(of, with_settings)))
        way = Way(name=f"target alone, {name}", role="alone", note=note or engine.name)
        add(way, lambda prompt, max_tokens: greedy_alone(engine, stop_ids, prompt, max_tokens))

    for name in also:
        try:
            other = catalog.find(name)
        except NotHere as error:
            missing.append(Missing(f"target alone, {name}", str(error)))
            continue
        inexact = dataclasses.replace(settings, has_exact_kernels=False)
        alone(name, other, inexact, "the kernels that are fastest, not those of equal bits")
    chosen = fastest(folder, settings)
    alone("passes of one", folder, chosen)
    if chosen.provider == "openvino":
        alone("passes of one, ONNX Runtime", folder, dataclasses.replace(chosen, provider="cpu"))
    verifier = open_verifier(folder, settings)
    stack.callback(verifier.close)
    add(Way(name=IN_CLASS, role="alone", note="what exactness costs without drafts"), Pair(verifier, None, folder))
    for name in drafters:
        try:
            drafter = open_drafter(name, folder, settings)
        except NotHere as error:
            missing.append(Missing(f"pair, {name}", str(error)))
            continue
        if drafter is not None:
            stack.callback(drafter.close)
        way = Way(name=f"pair, {name}", role="ours", note=drafter.name if drafter else "", equals=IN_CLASS)
        add(way, Pair(verifier, drafter, folder))
    return contenders, missing


def profiles(names: Sequence[str]) -> dict[str, dict[int, float]]:
    """What passes cost, of those models whose profile is stored: milliseconds by the tokens in a pass."""
    found = {}
    for name in names:
        try:
            manifest = catalog.find(name).manifest
        except OutriderError:  # "lookup" and the like
            continue
        for profile in manifest.profiles.values():
            library, num = profile.engine.split()[0], profile.num_threads
            found[f"{manifest.name}, {library}, {num} thread{'s' * (num > 1)}"] = profile.cost_ms
    return found


def peer_ways(peers: Sequence[Peer], wanted: str) -> tuple[list[Contender], list[Missing]]:
    """Of the peers that are wanted ("all", "none", or beginnings of their names with commas between) those that can run
    here, and why the others cannot. Raises InvalidParameter for a name that none has."""
    chosen = [] if wanted == "none" else list(peers)
    if wanted not in ("all", "none"):
        beginnings = _beginnings([peer.name for peer in peers], wanted)
        for beginning in beginnings:
            if not any(peer.name.startswith(beginning) for peer in peers):
                there = "; ".join(peer.name for peer in peers) or "none"
                raise InvalidParameter(f"no peer's name begins with {beginning!r}; there are: {there}")
        chosen = [peer for peer in peers if peer.name.startswith(tuple(beginnings))]
    contenders, missing = [], []
    for peer in chosen:
        if (reason := peer.reason()) is not None:
            missing.append(Missing(peer.name, reason))
        else:
            way = Way(name=peer.name, role="peer", note=peer.weights)
            contenders.append(Contender(way, list(peer.settings), _opening(peer)))
    return contenders, missing


def _beginnings(names: Sequence[str], wanted: str) -> list[str]:
    """What stands between the commas; a whole name may hold one itself."""
    found = []
    left = wanted.strip()
    while left:
        whole = [name for name in names if left == name or left.startswith(f"{name},")]
        word = max(whole, key=len) if whole else left.partition(",")[0]
        found.append(word.strip())
        left = left[len(word) :].lstrip(", ")
    return found


def _opening(peer: Peer) -> Callable[[str], AbstractContextManager[Generate]]:
    @contextmanager
    def opened(setting: str) -> Iterator[Generate]:
        with closing(peer.open(setting)) as running:

            def generate(prompt: Sequence[int], max_tokens: int) -> Answer:
                answer = running.generate(prompt, max_tokens)
                passes = None if answer.num_passes is None else answer.num_passes + 1  # the prompt's gives a token, too
                return Answer(token_ids=answer.token_ids, seconds=answer.seconds, first_s=answer.first_s, passes=passes)

            yield generate

    return opened
