"""The simulation of many devices against closed forms, against the product itself, and against what was measured.

Tolerances: 3 % where the closed form is exact but for the ends of a run, 5 % where it speaks of a verifier that is
never idle, 10 % for what was measured.
"""

import asyncio
import doctest
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from benchmarks import cost, fleet, loads
from benchmarks.fleet_record import MANY, NAMES, Details, loads_of
from benchmarks.loads import KINDS, Kind, Load, Way, best_drafts, capacity, expected_tokens, measure
from benchmarks.machines import Curve, Machine, Roofline, find_machine
from benchmarks.options import FleetOptions
from benchmarks.plots import FIGURES
from benchmarks.simulated_verifier import SimulatedVerifier, numbered
from benchmarks.simulation import NEVER, Device, Link, Text, play
from benchmarks.tables import lines
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.events import Finished
from edge_runtime.links import InProcessLink
from edge_runtime.pacing import Pace
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider.errors import InvalidParameter
from tests.drafting import ScriptedDrafter
from tests.toy import ToyEngine


def flat(pass_ms: float, *, draft_ms: float, beside_ms: float = 1.0, batch: int = 1, sequences: int = 64) -> Machine:
    """A pass takes the same whatever is in it."""
    rows = {1: pass_ms, 4096: pass_ms}
    verify = Curve(measured={1: rows, 4096: rows})
    beside = Curve(measured={1: {1: beside_ms}, 4096: {1: beside_ms}})
    return Machine("flat", "", verify, draft_ms, beside, batch, sequences, 4096)


def independent(acceptance: float) -> Kind:
    return Kind("independent", acceptance, 0)


@pytest.mark.parametrize(
    ("acceptance", "num_drafts", "rtt_ms", "num_tokens"),
    [(0.6, 3, 0.0, 1500), (0.8, 5, 50.0, 2000)],
)
def test_taking_turns_is_the_closed_form(acceptance: float, num_drafts: int, rtt_ms: float, num_tokens: int) -> None:
    """A turn brings (1 - a^(k+1)) / (1 - a) tokens, and takes RTT + k d + t."""
    machine = flat(20, draft_ms=4)
    kind = independent(acceptance)
    load = measure(machine, "turns", kind, 1, rtt_ms, num_tokens=num_tokens, num_drafts=num_drafts)
    tokens = expected_tokens(acceptance, num_drafts)
    assert 1 / load.turns_per_token == pytest.approx(tokens, rel=0.03)
    assert load.rate == pytest.approx(1000 * tokens / (rtt_ms + 4 * num_drafts + 20), rel=0.03)


def test_a_verifier_that_is_never_idle_gives_its_batch_over_its_pass() -> None:
    """12 devices, 4 a pass of 30 ms: B / t tokens a second without drafts, B E / t with them."""
    machine = flat(30, draft_ms=1, batch=4)
    kind = independent(0.8)
    plain = measure(machine, "alone", kind, 12, 10.0)
    assert plain.rate * 12 == pytest.approx(4 / 0.030, rel=0.05)
    turns = measure(machine, "turns", kind, 12, 10.0, num_drafts=4)
    assert turns.rate * 12 == pytest.approx(4 * expected_tokens(0.8, 4) / 0.030, rel=0.05)
    assert turns.busy > 0.97


@pytest.mark.parametrize(("beside_ms", "num_drafts"), [(5.0, 6), (2.0, 4)])
def test_drafting_on_the_device_multiplies_what_a_verifier_serves(beside_ms: float, num_drafts: int) -> None:
    """By 1 + k t_draft / t_verify, against the same drafter beside the target, when the verifier is the limit."""
    machine = flat(30, draft_ms=1, beside_ms=beside_ms, batch=4)
    kind = independent(0.8)
    edge = measure(machine, "turns", kind, 16, 10.0, num_drafts=num_drafts)
    beside = measure(machine, "beside", kind, 16, 10.0, num_drafts=num_drafts)
    assert edge.rate / beside.rate == pytest.approx(1 + num_drafts * beside_ms / 30, rel=0.05)


FULL = 12  # rows from which on a pass of `filling` takes longer with each
filling = Machine(
    "filling",
    "",
    Curve(computed=Roofline(20.0, 20.0 / FULL, 0.0, 1, 1000.0, 1.0, 1.0, 0.0)),
    draft_ms=5.0,
    beside=Curve(measured={1: {1: 1.0}}),
    max_batch=64,
    max_sequences=64,
)


@pytest.mark.parametrize(("kind", "num_devices", "least"), [("chat", 20, 0.97), ("code", 20, 0.97), ("code", 2, 1.5)])
def test_a_full_verifier_is_no_slower_for_drafts_and_one_with_rows_to_spare_faster(
    kind: str, num_devices: int, least: float
) -> None:
    alone, ours = (measure(filling, way, KINDS[kind], num_devices, 30.0, num_tokens=40) for way in ("alone", "ahead"))
    assert ours.rate >= least * alone.rate
    assert ours.rate_p10 >= least * alone.rate_p10


def test_waiting_is_that_of_the_queue() -> None:
    """M/D/1: who comes at random and wants one pass waits t r / (2 (1 - r)) on average, r the share that is busy.

    Lindley's recursion says when each pass ends, whoever's it is; over many more waits that comes to the formula."""
    pass_ms, busy, count = 10.0, 0.7, 200
    rng = random.Random(3)
    asks_ms, waits_ms = [0.0], [0.0]
    while len(asks_ms) < 100_000:
        later_ms = rng.expovariate(busy / pass_ms)
        asks_ms.append(asks_ms[-1] + later_ms)
        waits_ms.append(max(0.0, waits_ms[-1] + pass_ms - later_ms))
    assert sum(waits_ms) / len(waits_ms) == pytest.approx(pass_ms * busy / (2 * (1 - busy)), rel=0.05)
    texts = [Text([7], [True], [1.0], numbered(number, 1)) for number in range(count)]
    devices = [Device(text, NEVER, asks_ms=asked_ms) for text, asked_ms in zip(texts, asks_ms, strict=False)]
    play(devices, SimulatedVerifier(flat(pass_ms, draft_ms=1, sequences=4), texts), Link(0))
    ends_ms = [asked_ms + waited_ms + pass_ms for asked_ms, waited_ms in zip(asks_ms, waits_ms, strict=True)]
    assert sorted(device.result.trace[0][0] for device in devices) == pytest.approx(ends_ms[:count], abs=1e-6)


def test_streaming_is_exact_whatever_the_round_trip() -> None:
    machine = find_machine("h200-32b")
    for count in (1, 16):
        for rtt_ms in (0.0, 200.0):
            load = measure(machine, "alone", KINDS["chat"], count, rtt_ms, num_tokens=30)
            assert load.rate == pytest.approx(1000 / machine.verify(count, count), rel=0.02)
            assert load.turns_per_token == 1


def test_the_product_itself_takes_as_many_passes() -> None:
    """The real session, link and verifier over the toy, in turns of four; and the same texts, simulated."""

    async def generate(drafter: ScriptedDrafter | None, max_tokens: int = 150) -> tuple[list[int], int, int]:
        engine = ToyEngine(n_vocab=64, max_context=1024)
        loop = VerifierLoop(Verifier(engine, target="t", vocabulary="v", clock=lambda: 0.0))
        try:
            with ThreadPoolExecutor(1) as executor:
                session = Session(InProcessLink(loop), drafter, Pace(), executor, max_drafts=4)
                request = GenerationRequest([5, 9], max_tokens, vocabulary="v")
                events = [event async for event in session.generate(request)]
            tokens = [event.token_id for event in events if not isinstance(event, Finished)]
            return tokens, session.report.num_passes, session.report.num_accepted
        finally:
            loop.close()

    token_ids, _, _ = asyncio.run(generate(None))
    agrees = [random.Random(place).random() < 0.8 for place in range(len(token_ids))]
    found = asyncio.run(generate(_Traced([5, 9, *token_ids], agrees)))
    assert found[0] == token_ids

    text = Text(token_ids, agrees, [0.5] * len(token_ids), numbered(0, 1))
    machine = flat(10, draft_ms=1)
    device = Device(text, 1, num_drafts=4)
    play([device], SimulatedVerifier(machine, [text]), Link(5))
    assert (device.result.num_passes, device.result.num_accepted) == found[1:]


class _Traced(ScriptedDrafter):
    """Four drafts a turn, right where `agrees` says so and all before them were."""

    def __init__(self, script: Sequence[int], agrees: Sequence[bool]) -> None:
        super().__init__(script, accuracy=1, longest=4, n_vocab=64)
        self._agrees = agrees

    def propose(self, token_ids, params, pace, max_drafts):  # type: ignore[no-untyped-def]
        self._random.randint = lambda low, high: high  # type: ignore[method-assign]
        proposal = super().propose(token_ids, params, pace, max_drafts)
        is_right = True
        for at, token_id in enumerate(proposal.token_ids):
            is_right = is_right and self._agrees[len(token_ids) - 2 + at]
            proposal.token_ids[at] = token_id if is_right else (token_id + 1) % 64
        return proposal


def test_what_the_service_was_measured_to_give() -> None:
    """`make bench-service` (docs/performance.md): eight sessions that draft by lookup, 97 % accepted, 0.14 passes a
    token, 15.1 tokens a second of verifier time without drafts, 51.5 with them. Lookup proposes as many as it finds;
    here seven a turn, which is as many passes a token. The curve is that of the same machine, two threads."""
    curve = {1: 68.1, 2: 68.1, 3: 82.9, 4: 93.5, 5: 106.1, 6: 115.0, 7: 128.8, 8: 139.1, 16: 234.3, 32: 426.2}
    verify = Curve(measured={1: curve})
    machine = Machine("service", "", verify, 0.01, verify, max_sequences=8)
    plain = measure(machine, "alone", independent(0.97), 8, 0.1)
    assert plain.rate * 8 / plain.busy == pytest.approx(15.1, rel=0.1)
    load = measure(machine, "turns", independent(0.97), 8, 0.1, num_drafts=7)
    assert load.turns_per_token == pytest.approx(0.14, rel=0.1)
    assert load.rate * 8 / load.busy == pytest.approx(51.5, rel=0.1)


# `make bench-link` (docs/performance.md), chat, relative to the target alone: that is hardly drafted by lookup.
LINK_CHAT: dict[Way, dict[float, float]] = {
    "turns": {0: 1.29, 50: 0.99, 300: 0.56},
    "beside": {0: 1.28, 50: 1.31, 300: 1.35},
    "ahead": {0: 1.45, 50: 1.36, 300: 1.09},
}


@pytest.mark.parametrize("way", list(LINK_CHAT))
def test_what_the_link_was_measured_to_give(way: Way) -> None:
    machine = find_machine("xeon-core")
    alone = measure(machine, "alone", KINDS["chat"], 1, 0.0).rate
    assert alone == pytest.approx(8.4, rel=0.03)
    for rtt_ms, measured in LINK_CHAT[way].items():
        found = measure(machine, way, KINDS["chat"], 1, rtt_ms, num_tokens=400).rate / alone
        assert found == pytest.approx(measured, rel=0.1), f"{way}, RTT {rtt_ms}: {found:.2f}, measured {measured}"


def test_the_number_of_drafts_is_the_best_by_the_closed_form() -> None:
    machine = flat(30, draft_ms=10)
    assert best_drafts(machine, "turns", independent(0.3), 1, 0.0) == 1
    assert best_drafts(machine, "turns", independent(0.99), 1, 300.0) == 15
    per_row = Curve(measured={1: {1: 30.0, 2: 60.0}})  # each row costs a pass
    costly = msgspec.structs.replace(machine, verify=per_row)
    assert best_drafts(costly, "beside", independent(0.5), 4, 0.0) == 1


def test_a_capacity_lies_between_the_loads_around_it() -> None:
    def load(num_devices: int, rate: float) -> Load:
        return Load("alone", "chat", num_devices, 0.0, -1, rate, rate, 1.0, 1.0, 1.0, 0.0, 0.0, 64.0, 0.1)

    curve = [load(1, 50.0), load(2, 40.0), load(4, 20.0)]
    assert capacity(curve, 60.0) == 0
    assert capacity(curve, 20.0) == float("inf")
    assert capacity([load(1, 50.0), load(2, 25.0), load(4, 30.0)], 30.0) == float("inf")
    assert capacity(curve, 30.0) == pytest.approx(2 + 2 * (1 / 30 - 1 / 40) / (1 / 20 - 1 / 40))


def test_a_run_answers_all_three_questions() -> None:
    options = FleetOptions(
        engine="core",
        kinds=("chat",),
        rates=(3.0, 12.0),
        most_devices=4,
        rtt_tokens=24,
        num_devices=30,
        activity=0.1,
        rate=3.0,
        answer_tokens=24,
        prompt_tokens=16,
    )
    result = fleet.run(options, ["outrider", "bench", "fleet"])
    details = Details.read(result.details)
    found = {(each.way, each.rate): each.num_devices for each in details.served}
    assert found["ahead", 12.0] == 2 > found["alone", 12.0] == 1
    assert found["alone", 3.0] is None  # as many as there were
    runs = result.select(way=NAMES["ahead"], prompt=MANY)
    assert [run.num_sessions for run in runs] == [1, 2, 4]
    assert [run.tokens_per_s for run in runs] == pytest.approx([load.rate for load in loads_of(runs)])
    [crossed] = details.crossings
    assert crossed.ahead_of_alone_ms is not None
    assert crossed.turns_of_alone_ms is not None
    assert 0 < crossed.turns_of_alone_ms < crossed.ahead_of_alone_ms < 300
    [ours] = [each for each in details.fleets if each.way == "ahead"]
    assert ours.check is not None
    assert ours.check.num_devices == 30
    assert ours.check.share_served > 0.9
    assert ours.cost is not None
    assert ours.cost.money == pytest.approx(ours.num_verifiers * 3.5 / (30 * 0.1 * 3 * 3600) * 1e6, rel=0.01)


def test_a_part_alone_is_told_and_drawn_alone() -> None:
    from matplotlib import pyplot

    options = FleetOptions(engine="core", kinds=("chat",), parts=("rtt",), rtt_tokens=8)
    result = fleet.run(options, [])
    text = "\n".join(lines(result))
    assert "RTT 300 ms" in text
    assert "one verifier serves" not in text
    assert "verifier hour" not in text
    [(name, figure)] = FIGURES["fleet"](result)
    pyplot.close(figure)
    assert name == "speed-over-rtt"


def test_the_same_seed_the_same_load() -> None:
    machine = find_machine("h100-7b")
    found = [measure(machine, "ahead", KINDS["code"], 12, 20.0, num_tokens=24, seed=4) for _ in range(2)]
    assert found[0] == found[1]


def test_a_machine_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    mine = flat(12, draft_ms=3, batch=4)
    file.write_bytes(msgspec.json.encode(mine))
    assert find_machine(str(file)) == mine
    curve = Curve(measured={1: {1: 10.0, 3: 20.0}, 3: {1: 20.0}})
    assert [curve(1, rows) for rows in (1, 2, 3, 6)] == [10.0, 15.0, 20.0, 40.0]
    assert curve(2, 2) == 15.0


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("nobody", None, "is no machine; give one of core, xeon-core"),
        ("gone.json", None, "cannot be read"),
        ("bad.json", "{}", "describes no machine"),
        ("bad.json", '{"name":"\xff"}', "describes no machine"),
        ("bad.json", '{"name":"","about":"","verify":{},"draft_ms":1,"beside":{}}', "either measured or computed"),
        (
            "bad.json",
            '{"name":"","about":"","verify":{"measured":{"1":{"1":0}}},"draft_ms":1,"beside":{}}',
            "takes no time",
        ),
        (
            "bad.json",
            '{"name":"","about":"","verify":{"measured":{"1":{"1":5}}},"draft_ms":1,"beside":{"measured":{"1":{"1":5}}},'
            '"max_batch":0}',
            "max_batch",
        ),
    ],
)
def test_a_machine_that_is_none_is_refused_in_a_sentence(
    tmp_path: Path, name: str, text: str | None, sentence: str
) -> None:
    given = str(tmp_path / name) if name.endswith(".json") else name
    if text is not None:
        Path(given).write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidParameter, match=sentence):
        find_machine(given)


def test_examples_in_docstrings() -> None:
    for module in (cost, loads):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
