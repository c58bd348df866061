"""What somebody on the wire sees: with padding one size each way, without it sizes that tell prompts apart.

Frames are read from the bytes that passed a proxy. A nearest-centroid classifier learns from some runs which of twenty
prompts a sequence of sizes belongs to, and guesses for the others. That it succeeds without padding is the control.
"""

import asyncio
import random
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.fault_proxy import FaultProxy, Traffic
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import Proposal
from edge_runtime.events import Finished
from edge_runtime.links import WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.report import Report
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from tests.cloud_verifier.test_verifier import PROMPT, make, target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.serving import serving_here
from tests.toy import ToyEngine

NUM_PROMPTS = 20
NUM_TOKENS = 18
NUM_FRAMES = 5  # each way, that the classifier looks at: every session has as many
BINARY = 2
CHANCE = 1 / NUM_PROMPTS
DOCS = Path(__file__).parent.parent.parent / "docs" / "protocol.md"

Frames = list[tuple[float, int]]  # (seconds, bytes on the wire)


def frames_of(pieces: list[tuple[float, bytes]]) -> Frames:
    """The binary WebSocket frames of one direction, after the HTTP handshake; a frame's time is its last byte's."""
    data = b"".join(piece for _, piece in pieces)
    ends = np.cumsum([len(piece) for _, piece in pieces])
    at = data.index(b"\r\n\r\n") + 4
    frames: Frames = []
    while at < len(data):
        start, opcode, is_masked, length = at, data[at] & 15, data[at + 1] >> 7, data[at + 1] & 127
        at += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[at : at + size])
            at += size
        at += 4 * is_masked + length
        if opcode == BINARY:
            frames.append((pieces[int(np.searchsorted(ends, at))][0], at - start))
    return frames


class HabitualDrafter:
    """Six drafts a turn of what the target most often says, wrong at places that belong to the prompt."""

    name = "habit"

    def __init__(self, prompt: list[int]) -> None:
        habits = random.Random(str(prompt))
        self._script = [
            (token_id + (habits.random() < 0.25)) % 16
            for token_id in prompt + target_alone(prompt, NUM_TOKENS, SamplingParams())
        ]

    def prefill(self, token_ids: Sequence[int]) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: Sequence[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        ids = self._script[len(token_ids) : len(token_ids) + min(6, max_drafts)]
        return Proposal(self.name, ids, [0.75] * len(ids))

    def close(self) -> None:
        """Nothing to free."""


def record(num_runs: int, *, is_padded: bool) -> list[list[tuple[Frames, Frames]]]:
    """By prompt and run: the frames up and down of a session. Runs differ in their seeds."""
    rng = random.Random(1)
    prompts = [rng.sample(range(16), 8) for _ in range(NUM_PROMPTS)]
    drafters = [HabitualDrafter(prompt) for prompt in prompts]

    async def run() -> list[list[Traffic]]:
        # Any draft pays, whatever the clock says.
        costs = {rows: 1000 + 0.001 * rows for rows in range(1, 33)}
        loop = VerifierLoop(Verifier(ToyEngine(), target="t", vocabulary="v", pass_ms=costs))
        seen: list[list[Traffic]] = [[] for _ in prompts]
        with ThreadPoolExecutor(1) as executor:
            async with serving_here(loop) as port, FaultProxy(port) as proxy:
                for seed in range(num_runs):
                    for number, prompt in enumerate(prompts):
                        link = WebSocketLink(f"http://127.0.0.1:{proxy.port}", is_padded=is_padded)
                        session = Session(link, drafters[number], EagerPace(), executor)
                        params = SamplingParams(temperature=0.1, seed=seed)
                        async for _ in session.generate(GenerationRequest(prompt, NUM_TOKENS, params)):
                            pass
                        seen[number].append(proxy.traffic[-1])
        loop.close()
        return seen

    return [[(frames_of(each.up), frames_of(each.down)) for each in runs] for runs in asyncio.run(run())]


def sizes_of(frames: Frames) -> list[int]:
    return [size for _, size in frames]


def gaps_of(frames: Frames) -> list[float]:
    return list(np.diff([second for second, _ in frames]))


def accuracy(vectors: NDArray[np.float64]) -> float:
    """`vectors[prompt, run]`: learn from even runs, guess the prompt of odd ones. Ties are guessed at random."""
    centroids = vectors[:, ::2].mean(axis=1)
    rng = np.random.default_rng(0)
    right = []
    for prompt, runs in enumerate(vectors[:, 1::2]):
        for vector in runs:
            distances = np.linalg.norm(centroids - vector, axis=1)
            right.append(rng.choice(np.flatnonzero(np.isclose(distances, distances.min()))) == prompt)
    return float(np.mean(right))


@pytest.mark.parametrize("most_runs", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_padded_frames_are_of_one_size_each_way_and_tell_no_prompt(most_runs: int) -> None:
    print("seeds: prompts 1, runs 0 to", most_runs - 1)
    for is_padded in (False, True):
        num_runs = most_runs - (is_padded and most_runs % 2)  # where all are alike, two do
        seen = record(num_runs, is_padded=is_padded)
        assert min(len(way) for runs in seen for run in runs for way in run) >= NUM_FRAMES
        sizes = np.array([[[sizes_of(way)[:NUM_FRAMES] for way in run] for run in runs] for runs in seen], float)
        found = accuracy(sizes.reshape(NUM_PROMPTS, num_runs, -1))
        gaps = np.array([[[gaps_of(way)[: NUM_FRAMES - 1] for way in run] for run in runs] for runs in seen])
        counts = np.array([[[len(way) for way in run] for run in runs] for runs in seen], float)
        print(f"padded: {is_padded}; right of {NUM_PROMPTS} prompts by sizes {found:.0%}, chance {CHANCE:.0%};")
        print(f"    by gaps alone {accuracy(gaps.reshape(NUM_PROMPTS, num_runs, -1)):.0%},", end=" ")
        print(f"by the number of frames alone {accuracy(counts):.0%}")
        for direction in (0, 1):
            distinct = {size for runs in seen for run in runs for size in sizes_of(run[direction])}
            assert (len(distinct) == 1) == is_padded
        if is_padded:
            assert found <= CHANCE + 0.05
        else:
            assert found > 5 * CHANCE


def report_of(*, is_padded: bool) -> Report:
    async def run() -> Report:
        loop = VerifierLoop(make(ToyEngine()))
        try:
            with ThreadPoolExecutor(1) as executor:
                async with serving_here(loop) as port:
                    script = PROMPT + target_alone(num_tokens=400)
                    drafter = ScriptedDrafter(script, accuracy=0.9, longest=8, n_vocab=16)
                    link = WebSocketLink(f"http://127.0.0.1:{port}", is_padded=is_padded)
                    session = Session(link, drafter, EagerPace(), executor)
                    request = GenerationRequest(PROMPT, 400, SamplingParams(temperature=1.2, seed=5))
                    async for event in session.generate(request):
                        if isinstance(event, Finished):
                            return event.report
        finally:
            loop.close()
        raise AssertionError

    return asyncio.run(run())


def test_the_page_says_what_padding_costs() -> None:
    page = DOCS.read_text()
    for word, is_padded in (("padded", True), ("bare", False)):
        report = report_of(is_padded=is_padded)
        up, down = report.bytes_up / report.num_tokens, report.bytes_down / report.num_tokens
        print(f"| {word} | {up:.0f} | {down:.0f} | ({report.num_tokens / report.num_passes:.1f} tokens a pass)")
        told = re.search(rf"^\| {word} \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
        assert told, word
        assert [up, down] == pytest.approx([int(told[1]), int(told[2])], rel=0.25)
