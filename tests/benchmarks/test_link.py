"""Suite `link` in pieces: the proxy, turns and runs, the device, the tables on figures made up."""

import asyncio
import itertools
import random
from collections.abc import Sequence

import msgspec
import pytest

from benchmarks.fault_proxy import FaultProxy, Toxics
from benchmarks.link_device import FixedPace, Generation, Heard, Tracing, framed_bytes, generate, keep_prompt, trace
from benchmarks.link_record import AHEAD, ALONE, COLOCATED, TURNS, WAYS, Details, More, Wire
from benchmarks.pinned import Pinned, cores
from benchmarks.record import Answer, Result, Run
from benchmarks.simulation import Link, bursts, simulate
from benchmarks.tables.link import View, lines
from benchmarks.traces import Trace, run_lengths, share_beyond
from benchmarks.turns import best_length, turns_ms
from cloud_verifier.loop import VerifierLoop
from edge_runtime.ahead import AheadPace
from edge_runtime.drafters import ModelDrafter
from outrider.choice import SamplingParams
from outrider.errors import EngineError
from outrider.wire import Draft, Verified, pack_ids
from tests.benchmarks.test_record import HERE
from tests.cloud_verifier.test_verifier import PROMPT, make, target_alone
from tests.serving import serving
from tests.toy import ToyEngine

NUM_TOKENS = 30
WANT = target_alone(PROMPT, NUM_TOKENS, SamplingParams())


# The processes


def test_a_process_that_ends_unasked_is_an_error_in_one_sentence() -> None:
    async def run() -> None:
        async with Pinned("benchmarks.order", cores(1)[0]) as process:  # which answers nothing
            await process.ask(Tracing([], []), Trace)

    with pytest.raises(EngineError, match=r"benchmarks\.order ended before its time"):
        asyncio.run(run())


# The link


def test_pieces_are_under_way_together_and_come_out_in_order() -> None:
    """Ten bytes, a piece each: all are on their way before the first comes out, however the jitter falls."""

    async def run() -> tuple[int, bytes]:
        came: asyncio.Queue[bytes] = asyncio.Queue()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1):
                await came.put(data)
            await came.put(b"")
            writer.close()

        toxics = Toxics(latency_s=0.2, jitter_s=0.02, slicer=1)
        async with asyncio.timeout(30), await asyncio.start_server(take, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with FaultProxy(port, up=lambda number: toxics) as proxy:
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(b"0123456789")
                writer.write_eof()
                data = b""
                while piece := await came.get():
                    data += piece
                writer.close()
        return proxy.traffic[0].most_under_way, data

    most_under_way, data = asyncio.run(run())
    assert data == b"0123456789"
    assert most_under_way >= 9


# Runs and turns


def test_run_lengths_and_how_deep_tokens_are_in_them() -> None:
    agrees = [letter == "." for letter in "..X...X.X.XX...."]
    lengths = run_lengths(agrees)
    assert lengths == [2, 3, 1, 1, 0, 4]
    for depth in range(6):
        deep = 0
        for is_right, group in itertools.groupby(agrees):
            deep += is_right * sum(place >= depth for place, _ in enumerate(group))
        assert share_beyond(agrees, depth) == deep / len(agrees)
    assert run_lengths([]) == []
    assert run_lengths([False, False]) == [0, 0]


def cost(rows: int) -> float:
    return 90.0 + 10 * rows


def test_turns_on_texts_that_are_all_right_and_all_wrong() -> None:
    right, wrong = (Trace([1] * 21, [is_right] * 21, [1.0] * 21, ["m"] * 21, 5.0).text() for is_right in (True, False))
    # Four right drafts and the verifier's own token: twenty after the first are four turns.
    assert turns_ms(right, 4, 50.0, cost, 5.0) == 4 * (4 * 5 + 50 + cost(5))
    # A token a turn; near the end there is no room for four drafts.
    assert turns_ms(wrong, 4, 50.0, cost, 5.0) == sum(
        min(4, left) * 5 + 50 + cost(1 + min(4, left)) for left in range(20)
    )
    assert best_length(wrong, 50.0, cost, 5.0) == 1
    assert best_length(right, 50.0, cost, 5.0) > 8


def test_turns_of_one_draft_on_a_random_text() -> None:
    text = bursts(400, 0.8, 0, random.Random(2))
    place, num_turns = 1, 0
    while place < 400:
        num_turns += 1
        place += 2 if text.agrees[place] and place < 399 else 1
    assert turns_ms(text, 1, 7.0, lambda rows: 100.0, 0.0) == num_turns * 107.0


def test_a_trace_is_replayed_by_the_simulation() -> None:
    """Ids of a large vocabulary; where the drafter is always right, drafting ahead beats one token a pass."""
    ids = [151_000 + 7 * place for place in range(300)]
    told = Trace(ids, [True] * 300, [0.9] * 300, ["m"] * 300, 5.0)
    again = msgspec.json.decode(msgspec.json.encode(told), type=Trace)
    result = simulate(again.text(), Link(20.0), cost, again.draft_ms)
    assert result.num_tokens == 300
    assert result.num_passes < 100


# The device


def test_a_device_generates_four_ways_and_traces_its_drafter() -> None:
    """Over a real socket, the toy as the target and, of another seed, as the drafter."""
    loop = VerifierLoop(make(ToyEngine()))
    drafter = ModelDrafter(ToyEngine(), name="toy")
    other = ModelDrafter(ToyEngine(seed=1), name="other")
    ahead = AheadPace()

    async def run(url: str) -> list[Heard]:
        return [
            await generate(Generation(url, "", PROMPT, NUM_TOKENS, [], "v", num_drafts, False), by, ahead)
            for num_drafts in (0, 3, -1)
            for by in (drafter, other)
        ]

    try:
        with serving(loop) as url:
            runs = asyncio.run(run(url))
    finally:
        loop.close()
    assert all(heard.answer.token_ids == WANT for heard in runs)
    alone, _, turns, bad_turns, _, _ = runs
    assert (alone.num_guesses, alone.wire.num_up, alone.answer.passes) == (0, 0, NUM_TOKENS)
    assert turns.answer.passes is not None
    assert turns.answer.passes < NUM_TOKENS / 2
    assert turns.answer.accepted == turns.answer.drafted
    assert (turns.answer.drafted or 0) > NUM_TOKENS / 2
    assert turns.wire.num_up <= turns.answer.passes
    assert (bad_turns.answer.accepted or 0) < (bad_turns.answer.drafted or 0)
    for each in runs:
        assert each.wire.bare_up <= each.wire.padded_up
        assert each.wire.num_down == each.answer.passes
        assert each.wire.bare_down < each.wire.padded_down

    same = trace(Tracing(PROMPT, WANT), drafter)
    assert same.agrees == [True] * NUM_TOKENS
    assert set(same.sources) == {"toy"}
    assert not all(trace(Tracing(PROMPT, WANT), other).agrees)


def test_a_prompt_is_kept_and_its_last_answer_is_not() -> None:
    engine = ToyEngine()
    drafter = ModelDrafter(engine, name="toy")
    drafter.propose(PROMPT, SamplingParams(), FixedPace(5), 5)
    keep_prompt(drafter, PROMPT)
    before = engine.num_passes
    proposal = drafter.propose([*PROMPT, WANT[0]], SamplingParams(), FixedPace(5), 5)
    assert proposal.token_ids == WANT[1:6]
    assert engine.chunks[before:] == [[1]] * 5  # a pass a guess, and none for the prompt

    keep_prompt(drafter, [])
    before = engine.num_passes
    drafter.prefill(PROMPT)
    assert engine.chunks[before:] == [[len(PROMPT) - 1]]


def test_messages_are_counted_as_they_travel() -> None:
    draft = Draft(3, 700, pack_ids([1, 2, 3, 4]), bytes(4))
    # Header and mask 6; the message 1 + 1 + 1 + 3, ids 2 + 16, confidences 2 + 4, no parents 2; its end 1.
    assert framed_bytes(draft, is_padded=False, is_masked=True) == 6 + 6 + 18 + 6 + 2 + 1
    assert framed_bytes(draft, is_padded=True, is_masked=True) == 8 + 192
    assert framed_bytes(Verified(0, 5, b"", 0, 0), is_padded=True, is_masked=False) == 4 + 192


# The tables


def measured(way: str, tokens_per_s: float, token_ids: Sequence[int] = (1, 2, 3), busy_s: float = 1.0) -> Run:
    rows = [1, 1, 2] if way == AHEAD else [1, 1, 1]
    more = More(
        num_drafts=4 if way == TURNS else 0,
        wire=Wire(2, 60, 400, 41, 2, 40, 392),
        num_guesses=5,
        drafting_ms=50.0,
        rows=rows,
        pass_ms=[100.0] * 3,
        busy_s=busy_s,
    )
    answer = Answer(token_ids=list(token_ids), seconds=2 / tokens_per_s, first_s=0.05, passes=2, drafted=4, accepted=3)
    return Run.of(answer, "code", "code/0", way, rtt_ms=14.0, more=msgspec.to_builtins(more))


def result(*runs: Run) -> Result:
    details = Details(
        drafter="d",
        cores="c",
        profile_ms={rows: 40.0 + 10 * rows for rows in range(1, 33)},
        cold_s={"code": {way.name: [1.0] for way in WAYS}},
        traces={"code": [Trace([1, 2, 3], [True, False, True], [0.9] * 3, ["m"] * 3, 10.0)]},
        proxy_busy=0.01,
    )
    return Result(
        suite="link",
        command=[],
        environment=HERE,
        settings={"target": "t"},
        ways=WAYS,
        runs=list(runs),
        details=msgspec.to_builtins(details, str_keys=True),
    )


SPEEDS = {ALONE: 10.0, TURNS: 8.0, COLOCATED: 12.0, AHEAD: 21.0}


def test_tables_say_ratios_costs_and_whether_all_said_the_same() -> None:
    whole = result(*(measured(way, speed) for way, speed in SPEEDS.items()))
    view = View(whole)
    assert view.ratios("code", AHEAD, 14.0) == pytest.approx([2.1])
    assert view.draft_ms("code") == 10.0
    # One row was seen often and takes twice as long as the profile says; two rows once: as profiled, to scale.
    assert view.pass_ms()[1] == 100.0
    assert view.pass_ms()[2] == 120.0
    assert view.waited(ALONE) == 0.0
    shown = "\n".join(lines(whole))
    assert whole.is_exact
    assert "| code, ahead (ours) | 2.10 |" in shown
    assert "| code | 3 | 0.667 | 1.0 | 1 | 1 |" in shown
    assert "| code, device, in turns | 20.0 | 13.3 | 113, 117 | 0.67 | 41 | 75% |" in shown
    assert "Not a quiet machine" not in shown

    waiting = result(measured(ALONE, 10.0, busy_s=0.27), *(measured(way, 10.0) for way in (TURNS, COLOCATED, AHEAD)))
    assert View(waiting).waited(ALONE) == pytest.approx(0.1)
    assert "Not a quiet machine" in "\n".join(lines(waiting))

    short = [msgspec.structs.replace(run, more=run.more | {"rows": [], "pass_ms": []}) for run in whole.runs]
    assert View(result(*short)).pass_ms()[1] == 50.0  # answers of one token: no pass but the prompt's
    assert "| code, ahead (ours) | 2.10 |" in "\n".join(lines(result(*short)))

    broken = [measured(way, speed) for way, speed in SPEEDS.items()]
    assert not result(*broken[:3], measured(AHEAD, 21.0, [1, 2, 4])).is_exact
