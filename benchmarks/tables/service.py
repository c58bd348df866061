"""Suite `service` as tables: what drafts save, what a device gets, what the service itself takes."""

from collections.abc import Iterator

from benchmarks.record import Result
from benchmarks.service_record import DRAFTING, PLAIN, Details, Measured
from benchmarks.tables.common import spread, table

__all__ = ["lines"]


def lines(result: Result) -> Iterator[str]:
    details = Details.read(result.details)
    settings = result.settings
    count = len({(run.kind, run.prompt) for run in result.runs})
    asked = f"{count} prompts ({', '.join(result.kinds)}), {settings['max_tokens']} tokens each"
    yield f"{settings['target']}; {asked}; drafter {settings['drafter']}."
    yield ""
    header = ["devices at once", "passes per token", "rows per token", "tokens per second of verifier time"]
    yield from table(
        [*header, "tokens/s of a device", "accepted"],
        (
            _row(result, each)
            for each in sorted(details.measured, key=lambda each: (each.num_sessions, each.way != PLAIN))
        ),
    )
    yield ""
    found = {(each.way, each.num_sessions): each.figures for each in details.measured}
    for num_sessions in sorted({each.num_sessions for each in details.measured}):
        plain, drafting = found[PLAIN, num_sessions], found[DRAFTING, num_sessions]
        if drafting.num_passes and plain.verifier_s and drafting.verifier_s:
            yield (
                f"{num_sessions} at once: {plain.passes_per_token / drafting.passes_per_token:.1f}x fewer passes per "
                f"token, {drafting.tokens_per_s / plain.tokens_per_s:.2f}x the tokens per second of verifier time."
            )
    busiest = found[PLAIN, max(each.num_sessions for each in details.measured)]
    if busiest.overhead is not None and busiest.num_passes:
        cycle_ms = 1000 * busiest.verifier_s / busiest.num_passes / (1 - busiest.overhead)
        yield f"The service takes {busiest.overhead:.1%} of a pass's cycle of {cycle_ms:.2f} ms, the engine the rest."
    limit = details.limit
    yield (
        f"Without a model, {settings['num_streams']} sessions: {limit.messages_per_s:.0f} messages a second, "
        f"{limit.passes_per_s:.0f} passes a second of {limit.sessions_a_pass:.1f} sessions; "
        f"busy: service {limit.service_busy:.0%}, devices {limit.devices_busy:.0%} of a core."
    )


def _row(result: Result, of: Measured) -> list[str]:
    figures = of.figures
    rows = figures.num_rows / figures.num_tokens if figures.num_tokens else 0.0
    speeds = [run.tokens_per_s for run in result.select(way=of.way, num_sessions=of.num_sessions)]
    return [
        f"{of.num_sessions}, {of.way}",
        f"{figures.passes_per_token:.2f}",
        f"{rows:.2f}",
        f"{figures.tokens_per_s:.1f}",
        spread(speeds, digits=1) if any(speeds) else "-",
        "-" if figures.acceptance is None else f"{figures.acceptance:.0%}",
    ]
