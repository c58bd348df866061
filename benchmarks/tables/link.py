"""Suite `link` as tables; and beside it what the simulation says of the same texts and links."""

import statistics
from collections.abc import Callable, Iterable, Iterator

from benchmarks.link_record import AHEAD, ALONE, TURNS, Details, More, Wire
from benchmarks.record import Result, Run
from benchmarks.simulation import Link, Text, simulate
from benchmarks.tables.common import acceptance, row, spread, table
from benchmarks.traces import run_lengths, share_beyond
from benchmarks.turns import turns_ms
from outrider.worth import PassCost

__all__ = ["View", "lines"]

DEPTHS = (2, 4, 8, 16, 32)
QUIET = 0.03  # of the time of passes
FEW = 3  # passes of a size, below which its cost is taken from the profile


class View:
    """A result of this suite, its own parts read."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.details = Details.read(result.details)
        self.kinds = result.kinds
        self.ways = result.names()
        self.rtts_ms = list(dict.fromkeys(run.rtt_ms for run in result.runs if run.rtt_ms is not None))
        self._more = {id(run): More.read(run.more) for run in result.runs}

    def select(self, kind: str, way: str, rtt_ms: float | None = None) -> list[tuple[Run, More]]:
        """In the order of the prompts, and of round trips within one."""
        found = self.result.select(kind=kind, way=way)
        return [(run, self._more[id(run)]) for run in found if rtt_ms in (None, run.rtt_ms)]

    def ratios(self, kind: str, way: str, rtt_ms: float) -> list[float]:
        """Speed relative to the target alone, a number a prompt."""
        return self.result.ratios(way, ALONE, kind=kind, rtt_ms=rtt_ms)

    def pass_ms(self) -> dict[int, float]:
        """What a pass over k rows took in this run; sizes that hardly occurred are the profile's, to scale."""
        taken: dict[int, list[float]] = {}
        for more in self._more.values():
            for rows, elapsed_ms in zip(more.rows, more.pass_ms, strict=True):
                taken.setdefault(rows, []).append(elapsed_ms)
        profile_ms = self.details.profile_ms
        found = {rows: statistics.median(each) for rows, each in taken.items() if len(each) >= FEW}
        scales = [ms / profile_ms[rows] for rows, ms in found.items() if rows in profile_ms]
        scale = statistics.median(scales) if scales else 1.0
        return {rows: found.get(rows, ms * scale) for rows, ms in profile_ms.items()}

    def waited(self, way: str) -> float:
        """The least share of their time that passes waited for their core, which something else had."""
        taken = [self._more[id(run)] for run in self.result.select(way=way)]
        passes_s = sum(sum(each.pass_ms) for each in taken) / 1000
        return max(0.0, 1 - sum(each.busy_s for each in taken) / passes_s) if passes_s else 0.0

    def draft_ms(self, kind: str) -> float:
        """What a guess took while drafting ahead, catching up included."""
        made = [more for _, more in self.select(kind, AHEAD)]
        return sum(more.drafting_ms for more in made) / max(1, sum(more.num_guesses for more in made))


def lines(result: Result) -> Iterator[str]:
    view = View(result)
    details = view.details
    yield f"{result.settings['target']} with {details.drafter}; {details.cores}."
    yield f"The proxy was busy for {details.proxy_busy:.1%} of its core."
    waited = {way: view.waited(way) for way in view.ways}
    if max(waited.values()) > QUIET:
        told = ", ".join(f"{way} {share:.0%}" for way, share in waited.items())
        yield f"Not a quiet machine: something else had the verifier's core while passes ran ({told}). Run it again."
    yield ""
    yield "Tokens/s relative to the target alone: median (range) over the prompts."
    yield ""
    others = [way for way in view.ways if way != ALONE]
    yield from _by_rtt(view, lambda kind, way, rtt_ms: spread(view.ratios(kind, way, rtt_ms)), ways=others)
    yield ""
    for kind in view.kinds:
        speeds = [run.tokens_per_s for run, _ in view.select(kind, ALONE)]
        yield f"The target alone on {kind}: {statistics.median(speeds):.1f} tokens/s."
    yield from _lists(view, others)
    yield from _wire(view)
    yield from _runs(view)
    yield from _simulated(view)


def _lists(view: View, others: list[str]) -> Iterator[str]:
    yield "\nThe verifier's passes per token.\n"

    def passes(kind: str, way: str, rtt_ms: float) -> str:
        shares = [(run.passes or 0) / max(1, run.num_tokens) for run, _ in view.select(kind, way, rtt_ms)]
        return f"{statistics.mean(shares):.2f}"

    yield from _by_rtt(view, passes)
    yield "\nThe verifier's core: its processor time relative to the target alone, the service included.\n"

    def busy(kind: str, way: str, rtt_ms: float) -> str:
        mine, alone = (sum(more.busy_s for _, more in view.select(kind, each, rtt_ms)) for each in (way, ALONE))
        return f"{mine / alone:.2f}" if alone else "-"

    yield from _by_rtt(view, busy, ways=others)
    yield "\nSeconds from the request to the last token (to the first), the prompt in the caches.\n"

    def total(kind: str, way: str, rtt_ms: float) -> str:
        runs = [run for run, _ in view.select(kind, way, rtt_ms)]
        last_s = statistics.median(run.first_s + run.seconds for run in runs)
        return f"{last_s:.1f} ({statistics.median(run.first_s for run in runs):.2f})"

    yield from _by_rtt(view, total)
    yield ""
    for kind, by_way in view.details.cold_s.items():
        told = ", ".join(f"{way} {statistics.median(first_s):.1f}" for way, first_s in by_way.items())
        yield f"To the first token of {kind} with the prompt still to be read, RTT 0: {told}."
    yield "\nDrafts a turn, by prompt: the best fixed number for this text and round trip, known from its trace.\n"
    yield from _by_rtt(
        view,
        lambda kind, way, rtt_ms: ", ".join(str(more.num_drafts) for _, more in view.select(kind, way, rtt_ms)),
        ways=[TURNS],
    )


def _by_rtt(view: View, cell: Callable[[str, str, float], str], ways: Iterable[str] | None = None) -> Iterator[str]:
    yield row(["", *(f"RTT {rtt_ms:g} ms" for rtt_ms in view.rtts_ms)])
    yield "|---|" + "---|" * len(view.rtts_ms)
    for kind in view.kinds:
        for way in ways or view.ways:
            yield row([f"{kind}, {way}", *(cell(kind, way, rtt_ms) for rtt_ms in view.rtts_ms)])


def _wire(view: View) -> Iterator[str]:
    yield "\nOn the wire, framing included, opening left out; all round trips together.\n"
    header = ["", "up, B a token", "down, B a token", "padding up, down", "messages up a token", "largest up, B"]
    yield from table([*header, "accepted"], (_wire_row(view, kind, way) for kind in view.kinds for way in view.ways))


def _wire_row(view: View, kind: str, way: str) -> list[str]:
    runs = view.select(kind, way)
    num_tokens = max(1, sum(run.num_tokens for run, _ in runs))

    def a_token(of: Callable[[Wire], int]) -> float:
        return sum(of(more.wire) for _, more in runs) / num_tokens

    padding_up = a_token(lambda wire: wire.padded_up - wire.bare_up)
    padding_down = a_token(lambda wire: wire.padded_down - wire.bare_down)
    return [
        f"{kind}, {way}",
        f"{a_token(lambda wire: wire.bare_up):.1f}",
        f"{a_token(lambda wire: wire.bare_down):.1f}",
        f"{padding_up:.0f}, {padding_down:.0f}",
        f"{a_token(lambda wire: wire.num_up):.2f}",
        str(max(more.wire.largest_up for _, more in runs)),
        acceptance([run for run, _ in runs]),
    ]


def _runs(view: View) -> Iterator[str]:
    yield "\nHow long the drafter agrees with the target, on these texts.\n"
    beyond = [f"more than {depth} in" for depth in DEPTHS]
    rows = []
    for kind, traces in view.details.traces.items():
        agrees = [right for trace in traces for right in trace.agrees]
        lengths = [length for trace in traces for length in run_lengths(trace.agrees)] or [0]
        shares = [
            sum(share_beyond(trace.agrees, depth) * len(trace.agrees) for trace in traces) / max(1, len(agrees))
            for depth in DEPTHS
        ]
        agreement = f"{sum(agrees) / max(1, len(agrees)):.3f}"
        middle = [f"{statistics.mean(lengths):.1f}", f"{statistics.median(lengths):g}", f"{_p90(lengths):g}"]
        rows.append([kind, str(len(agrees)), agreement, *middle, *(f"{share:.0%}" for share in shares)])
    yield from table(["", "tokens", "agreement", "runs: mean", "median", "p90", *beyond], rows)


def _simulated(view: View) -> Iterator[str]:
    cost = PassCost(view.pass_ms())
    yield "\nMeasured / simulated, relative to the target alone: the same texts, with these costs in milliseconds."
    sizes = (1, 2, 4, 8, 16, 32)
    drafts = ", ".join(f"{view.draft_ms(kind):.1f} on {kind}" for kind in view.kinds)
    yield (
        f"A pass over {', '.join(map(str, sizes))} rows: {', '.join(f'{cost(rows):.0f}' for rows in sizes)}. "
        f"A draft: {drafts}.\n"
    )

    def cell(kind: str, way: str, rtt_ms: float) -> str:
        draft_ms = view.draft_ms(kind)
        simulated = []
        for (_, more), trace in zip(view.select(kind, way, rtt_ms), view.details.traces[kind], strict=True):
            text = trace.text()
            if way == TURNS:
                elapsed_ms = turns_ms(text, more.num_drafts, rtt_ms, cost, draft_ms)
                simulated.append((len(text.agrees) - 1) * cost(1) / (elapsed_ms or 1.0))
            else:
                simulated.append(_ahead(text, rtt_ms, cost, draft_ms))
        ratios = view.ratios(kind, way, rtt_ms) or [0.0]
        return f"{statistics.median(ratios):.2f} / {statistics.median(simulated):.2f}"

    yield from _by_rtt(view, cell, ways=[TURNS, AHEAD])


def _ahead(text: Text, rtt_ms: float, pass_ms: PassCost, draft_ms: float) -> float:
    """Speed relative to plain streaming, from the first token's arrival on, as it is measured."""
    arrivals = simulate(text, Link(rtt_ms), pass_ms, draft_ms).trace
    (first_ms, _), (last_ms, _) = arrivals[0], arrivals[-1]
    return (len(text.agrees) - 1) * pass_ms(1) / ((last_ms - first_ms) or 1.0)


def _p90(lengths: list[int]) -> float:
    return sorted(lengths)[min(len(lengths) - 1, int(0.9 * len(lengths)))]
