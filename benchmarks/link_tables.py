"""What `benchmarks.link` measured, as tables; and beside it what the simulation says of the same texts and links."""

import statistics
from collections.abc import Callable, Iterable

import msgspec

from benchmarks.link_device import Run, Wire
from benchmarks.link_verifier import Taken
from benchmarks.simulation import Link, Text, simulate
from benchmarks.traces import Trace, run_lengths, share_beyond
from benchmarks.turns import turns_ms
from outrider.worth import PassCost

__all__ = ["Measured", "Record", "print_tables"]

NAMES = {
    "alone": "target alone",
    "turns": "device, in turns",
    "colocated": "beside the target",
    "ahead": "ahead (ours)",
}
DEPTHS = (2, 4, 8, 16, 32)
QUIET = 0.03  # of the time of passes
FEW = 3  # passes of a size, below which its cost is taken from the profile


class Measured(msgspec.Struct, frozen=True):
    kind: str
    number: int  # of the prompt
    rtt_ms: float
    way: str
    num_drafts: int  # a turn; -1 ahead
    run: Run
    taken: Taken


class Record(msgspec.Struct, frozen=True):
    environment: str
    cores: str
    rtts_ms: list[float]
    ways: list[str]
    profile_ms: dict[int, float]
    cold: list[Measured]  # the first few tokens of each prompt, which nobody had seen before
    measured: list[Measured]
    traces: dict[str, list[Trace]]
    elapsed_s: float
    proxy_busy: float  # share of a core

    @property
    def kinds(self) -> list[str]:
        return list(self.traces)

    def select(self, kind: str, way: str, rtt_ms: float | None = None) -> list[Measured]:
        """In the order of the prompts, and of round trips within one."""
        return [
            each for each in self.measured if (each.kind, each.way) == (kind, way) and rtt_ms in (None, each.rtt_ms)
        ]

    @property
    def is_exact(self) -> bool:
        """Whether every way said what the target alone said first."""
        said: dict[tuple[str, int], list[int]] = {}
        for each in self.measured:
            said.setdefault((each.kind, each.number), each.run.token_ids)
        return all(each.run.token_ids == said[each.kind, each.number] for each in self.measured)

    def ratios(self, kind: str, way: str, rtt_ms: float) -> list[float]:
        """Speed relative to the target alone, a number a prompt."""
        pairs = zip(self.select(kind, way, rtt_ms), self.select(kind, "alone", rtt_ms), strict=True)
        return [mine.run.tokens_per_s / (alone.run.tokens_per_s or 1.0) for mine, alone in pairs]

    def pass_ms(self) -> dict[int, float]:
        """What a pass over k rows took in this run; sizes that hardly occurred are the profile's, to scale."""
        taken: dict[int, list[float]] = {}
        for each in self.measured:
            for rows, elapsed_ms in zip(each.taken.rows, each.taken.pass_ms, strict=True):
                taken.setdefault(rows, []).append(elapsed_ms)
        found = {rows: statistics.median(each) for rows, each in taken.items() if len(each) >= FEW}
        scale = statistics.median(ms / self.profile_ms[rows] for rows, ms in found.items() if rows in self.profile_ms)
        return {rows: found.get(rows, ms * scale) for rows, ms in self.profile_ms.items()}

    def waited(self, way: str) -> float:
        """The least share of their time that passes waited for their core, which something else had."""
        taken = [each.taken for each in self.measured if each.way == way]
        passes_s = sum(sum(each.pass_ms) for each in taken) / 1000
        return max(0.0, 1 - sum(each.busy_s for each in taken) / passes_s) if passes_s else 0.0

    def draft_ms(self, kind: str) -> float:
        """What a guess took while drafting ahead, catching up included."""
        runs = [each.run for each in self.select(kind, "ahead")]
        return sum(run.drafting_ms for run in runs) / max(1, sum(run.num_guesses for run in runs))


def print_tables(record: Record) -> bool:
    """Prints everything; whether all ways said the same."""
    print(f"{record.environment}\n{record.cores}; the proxy was busy for {record.proxy_busy:.1%} of its core.")
    waited = {way: record.waited(way) for way in record.ways}
    if max(waited.values()) > QUIET:
        told = ", ".join(f"{NAMES[way]} {share:.0%}" for way, share in waited.items())
        print(f"Not a quiet machine: something else had the verifier's core while passes ran ({told}). Run it again.")
    print()
    print("Tokens/s relative to the target alone: median (range) over the prompts.\n")
    _by_rtt(record, lambda kind, way, rtt_ms: _spread(record.ratios(kind, way, rtt_ms)), ways=record.ways[1:])
    for kind in record.kinds:
        speeds = [each.run.tokens_per_s for each in record.select(kind, "alone")]
        print(f"The target alone on {kind}: {statistics.median(speeds):.1f} tokens/s.")
    _lists(record)
    _wire(record)
    _runs(record)
    _simulated(record)
    print(f"\nSame tokens every way, {len(record.measured)} runs: {'yes' if record.is_exact else 'NO'}.", end=" ")
    print(f"It took {record.elapsed_s / 60:.1f} minutes.")
    return record.is_exact


def _lists(record: Record) -> None:
    def mean(of: Callable[[Measured], float]) -> Callable[[str, str, float], str]:
        return lambda kind, way, rtt_ms: f"{statistics.mean(map(of, record.select(kind, way, rtt_ms))):.2f}"

    print("\nThe verifier's passes per token.\n")
    _by_rtt(record, mean(lambda each: each.run.num_passes / max(1, len(each.run.token_ids))))
    print("\nThe verifier's core: its processor time relative to the target alone, the service included.\n")

    def busy(kind: str, way: str, rtt_ms: float) -> str:
        mine, alone = (
            sum(each.taken.busy_s for each in record.select(kind, each_way, rtt_ms)) for each_way in (way, "alone")
        )
        return f"{mine / alone:.2f}" if alone else "-"

    _by_rtt(record, busy, ways=record.ways[1:])
    print("\nSeconds from the request to the last token (to the first), the prompt in the caches.\n")

    def total(kind: str, way: str, rtt_ms: float) -> str:
        runs = [each.run for each in record.select(kind, way, rtt_ms)]
        last_s, first_s = (
            statistics.median(getattr(run, name) for run in runs) / 1000 for name in ("total_ms", "first_token_ms")
        )
        return f"{last_s:.1f} ({first_s:.2f})"

    _by_rtt(record, total)
    for kind in record.kinds:
        first_s = {
            NAMES[way]: statistics.median(
                each.run.first_token_ms / 1000 for each in record.cold if (each.kind, each.way) == (kind, way)
            )
            for way in record.ways
        }
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in first_s.items())
        print(f"To the first token of {kind} with the prompt still to be read, RTT 0: {told}.")
    print("\nDrafts a turn, by prompt: the best fixed number for this text and round trip, known from its trace.\n")
    _by_rtt(
        record,
        lambda kind, way, rtt_ms: ", ".join(str(each.num_drafts) for each in record.select(kind, way, rtt_ms)),
        ways=["turns"],
    )


def _by_rtt(record: Record, cell: Callable[[str, str, float], str], ways: Iterable[str] | None = None) -> None:
    print("| | " + " | ".join(f"RTT {rtt_ms:g} ms" for rtt_ms in record.rtts_ms) + " |")
    print("|---|" + "---|" * len(record.rtts_ms))
    for kind in record.kinds:
        for way in ways or record.ways:
            cells = [cell(kind, way, rtt_ms) for rtt_ms in record.rtts_ms]
            print(f"| {kind}, {NAMES[way]} | " + " | ".join(cells) + " |")


def _wire(record: Record) -> None:
    print("\nOn the wire, framing included, opening left out; all round trips together.\n")
    print("| | up, B a token | down, B a token | padding up, down | messages up a token | largest up, B | accepted |")
    print("|---|---|---|---|---|---|---|")
    for kind in record.kinds:
        for way in record.ways:
            runs = [each.run for each in record.select(kind, way)]
            num_tokens = max(1, sum(len(run.token_ids) for run in runs))
            wires = [run.wire for run in runs]

            def a_token(of: Callable[[Wire], int], wires: list[Wire] = wires, count: int = num_tokens) -> float:
                return sum(map(of, wires)) / count

            drafted = sum(run.num_drafted for run in runs)
            accepted = f"{sum(run.num_accepted for run in runs) / drafted:.0%}" if drafted else "-"
            print(
                f"| {kind}, {NAMES[way]} | {a_token(lambda wire: wire.bare_up):.1f} "
                f"| {a_token(lambda wire: wire.bare_down):.1f} "
                f"| {a_token(lambda wire: wire.padded_up - wire.bare_up):.0f}, "
                f"{a_token(lambda wire: wire.padded_down - wire.bare_down):.0f} "
                f"| {a_token(lambda wire: wire.num_up):.2f} | {max(wire.largest_up for wire in wires)} | {accepted} |"
            )


def _runs(record: Record) -> None:
    print("\nHow long the drafter agrees with the target, on these texts.\n")
    beyond = " | ".join(f"more than {depth} in" for depth in DEPTHS)
    print(f"| | tokens | agreement | runs: mean | median | p90 | {beyond} |")
    print("|---|" + "---|" * (5 + len(DEPTHS)))
    for kind, traces in record.traces.items():
        agrees = [right for trace in traces for right in trace.agrees]
        lengths = [length for trace in traces for length in run_lengths(trace.agrees)] or [0]
        shares = [
            sum(share_beyond(trace.agrees, depth) * len(trace.agrees) for trace in traces) / max(1, len(agrees))
            for depth in DEPTHS
        ]
        print(
            f"| {kind} | {len(agrees)} | {sum(agrees) / max(1, len(agrees)):.3f} | {statistics.mean(lengths):.1f} "
            f"| {statistics.median(lengths):g} | {_p90(lengths):g} | "
            + " | ".join(f"{share:.0%}" for share in shares)
            + " |"
        )


def _simulated(record: Record) -> None:
    cost = PassCost(record.pass_ms())
    print("\nMeasured / simulated, relative to the target alone: the same texts, with these costs in milliseconds.")
    print(
        "A pass over 1, 2, 4, 8, 16, 32 rows: " + ", ".join(f"{cost(rows):.0f}" for rows in (1, 2, 4, 8, 16, 32)) + ".",
        end=" ",
    )
    print("A draft: " + ", ".join(f"{record.draft_ms(kind):.1f} on {kind}" for kind in record.kinds) + ".\n")

    def cell(kind: str, way: str, rtt_ms: float) -> str:
        draft_ms = record.draft_ms(kind)
        simulated = []
        for each, trace in zip(record.select(kind, way, rtt_ms), record.traces[kind], strict=True):
            text = trace.text()
            if way == "turns":
                elapsed_ms = turns_ms(text, each.num_drafts, rtt_ms, cost, draft_ms)
                simulated.append((len(text.agrees) - 1) * cost(1) / (elapsed_ms or 1.0))
            else:
                simulated.append(_ahead(text, rtt_ms, cost, draft_ms))
        return f"{statistics.median(record.ratios(kind, way, rtt_ms)):.2f} / {statistics.median(simulated):.2f}"

    _by_rtt(record, cell, ways=["turns", "ahead"])


def _ahead(text: Text, rtt_ms: float, pass_ms: PassCost, draft_ms: float) -> float:
    """Speed relative to plain streaming, from the first token's arrival on, as it is measured."""
    arrivals = simulate(text, Link(rtt_ms), pass_ms, draft_ms).trace
    (first_ms, _), (last_ms, _) = arrivals[0], arrivals[-1]
    return (len(text.agrees) - 1) * pass_ms(1) / ((last_ms - first_ms) or 1.0)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _p90(lengths: list[int]) -> float:
    return sorted(lengths)[min(len(lengths) - 1, int(0.9 * len(lengths)))]
