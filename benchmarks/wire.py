"""Suite `wire`: the bytes of the real protocol over a real socket, by draft length, with padding and without.

No model: a target that counts, and a device that knows what comes next, or never does. How long a message is depends on
how many tokens are in it and on nothing else, so these are the bytes of any model. Every byte passes a proxy that keeps
it: the sums are checked against what the device says it sent.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.counting_engine import CountingEngine
from benchmarks.fault_proxy import FaultProxy
from benchmarks.link_device import FixedPace, MeteredLink, framed_bytes
from benchmarks.measuring import measuring
from benchmarks.options import WireOptions
from benchmarks.record import Answer, Published, Result, Run, Way
from benchmarks.serving import serving
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import Proposal
from edge_runtime.events import Token
from edge_runtime.pacing import Pace
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.progress import Progress, silent
from outrider.wire import Draft, Verified, pack_ids

__all__ = ["TEXTS", "run"]

TEXTS = {"all right": True, "all wrong": False}  # whether guesses are
PROMPT = list(range(32))
ELSEWHERE = [
    Published("SpecEdge", "136 KB up a round", "the whole attention mask travels", "computed from its code"),
    Published("AutoDraft", "1.3 to 72 KB a round", "JSON over TCP, by the size of the tree", "computed from its code"),
    Published("PicoSpec", "below 150 B a round", "as its authors say", "its paper"),
]


class CountingDrafter:
    """Knows what the target that counts says next, or always says something else."""

    name = "counting"
    can_answer = False

    def __init__(self, n_vocab: int, num_drafts: int, *, is_right: bool) -> None:
        self._n_vocab, self._num_drafts, self._step = n_vocab, num_drafts, 1 if is_right else 2

    def prefill(self, token_ids: Sequence[int]) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        count = min(self._num_drafts, max_drafts)
        ids = [(token_ids[-1] + self._step + place) % self._n_vocab for place in range(count)]
        return Proposal(self.name, ids, [0.9] * count)

    def close(self) -> None:
        """Nothing to free."""


def run(options: WireOptions, command: Sequence[str], progress: Progress = silent) -> Result:
    with measuring("wire", options, command) as result:
        result.ways = [
            Way(
                name=_name(length, is_padded=is_padded),
                role="ours" if length else "alone",
                equals="" if length == options.lengths[0] and is_padded else _name(options.lengths[0], is_padded=True),
            )
            for length in options.lengths
            for is_padded in (True, False)
        ]
        result.published = ELSEWHERE
        result.details = {"messages": messages(options.lengths)}
        with ExitStack() as stack:
            engine = CountingEngine(1, max_context=len(PROMPT) + options.num_tokens + 1)
            loop = VerifierLoop(Verifier(engine, target="counting", vocabulary=""))
            stack.callback(loop.close)
            url = stack.enter_context(serving(loop))
            result.runs = asyncio.run(_measure(options, engine.n_vocab, int(url.rpartition(":")[2]), progress))
    return result


def _name(length: int, *, is_padded: bool) -> str:
    return f"{length} drafts a turn, {'padded' if is_padded else 'bare'}"


async def _measure(options: WireOptions, n_vocab: int, port: int, progress: Progress) -> list[Run]:
    runs: list[Run] = []
    async with FaultProxy(port) as proxy:
        for done, length in enumerate(options.lengths):
            progress("measuring", done, len(options.lengths))
            for is_padded in (True, False):
                for text, is_right in TEXTS.items():
                    proxy.traffic.clear()
                    link = MeteredLink(f"http://127.0.0.1:{proxy.port}", token="", is_padded=is_padded)
                    drafter = CountingDrafter(n_vocab, length, is_right=is_right) if length else None
                    answer = await _generate(link, drafter, length, options.num_tokens)
                    wire = link.wire
                    sent_up, sent_down = (
                        wire.padded_up if is_padded else wire.bare_up,
                        wire.padded_down if is_padded else wire.bare_down,
                    )
                    [traffic] = proxy.traffic
                    passed = [sum(len(piece) for _, piece in each) for each in (traffic.up, traffic.down)]
                    told = Answer(
                        **{name: getattr(answer, name) for name in answer.__struct_fields__ if "bytes" not in name},
                        bytes_up=sent_up,
                        bytes_down=sent_down,
                    )
                    more = {
                        "num_drafts": length,
                        "is_padded": is_padded,
                        "messages_up": wire.num_up,
                        "messages_down": wire.num_down,
                        "rest_up": passed[0] - sent_up,  # the HTTP request, Open, and the end
                        "rest_down": passed[1] - sent_down,  # and notices that drafts keep missing
                    }
                    name = _name(length, is_padded=is_padded)
                    runs.append(Run.of(told, text, f"counting, {text}", name, more=more))
        progress("measuring", len(options.lengths), len(options.lengths))
    return runs


async def _generate(link: MeteredLink, drafter: CountingDrafter | None, length: int, num_tokens: int) -> Answer:
    token_ids: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        session = Session(link, drafter, FixedPace(length), executor, max_drafts=max(1, length), max_ahead=0)
        async for event in session.generate(GenerationRequest(PROMPT, num_tokens)):
            if isinstance(event, Token):
                token_ids.append(event.token_id)
    return Answer.of(token_ids, session.report)


def messages(lengths: Sequence[int]) -> list[dict[str, int]]:
    """One message of each kind at position 500, its WebSocket header included; computed by the protocol's own code."""
    found = []
    for length in lengths:
        draft = Draft(1, 500, pack_ids(range(length)), bytes(length))
        verified = Verified(1, 500, pack_ids(range(length + 1)), length, length)
        sizes = {"num_drafts": length}
        for padding, is_padded in (("bare", False), ("padded", True)):
            sizes[f"draft_{padding}"] = framed_bytes(draft, is_padded=is_padded, is_masked=True) if length else 0
            sizes[f"verified_{padding}"] = framed_bytes(verified, is_padded=is_padded, is_masked=False)
        found.append(sizes)
    return found
