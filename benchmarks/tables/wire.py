"""Suite `wire` as tables: bytes a token as they travelled, bytes a message."""

from collections.abc import Iterator

from benchmarks.record import Result
from benchmarks.tables.common import table

__all__ = ["lines"]


def lines(result: Result) -> Iterator[str]:
    for kind in result.kinds:
        yield f"Guesses {kind}, {result.settings['num_tokens']} tokens; bytes as they travelled, with framing."
        yield ""
        header = ["", "passes a token", "up, B a token", "down, B a token", "up, B a message", "down, B a message"]
        yield from table([*header, "the rest, up, down"], _rows(result, kind))
        yield ""
    yield "One message at position 500, bytes: drafts up, verified tokens down when all are right; computed."
    yield ""
    yield from table(
        ["drafts", "up, bare", "up, padded", "down, bare", "down, padded"],
        (
            [
                str(each[name])
                for name in ("num_drafts", "draft_bare", "draft_padded", "verified_bare", "verified_padded")
            ]
            for each in result.details["messages"]
        ),
    )


def _rows(result: Result, kind: str) -> Iterator[list[str]]:
    for run in result.select(kind=kind):
        up, down, more = run.bytes_up or 0, run.bytes_down or 0, run.more
        yield [
            run.way,
            f"{(run.passes or 0) / run.num_tokens:.2f}",
            f"{up / run.num_tokens:.1f}",
            f"{down / run.num_tokens:.1f}",
            f"{up / more['messages_up']:.0f}" if more["messages_up"] else "-",
            f"{down / more['messages_down']:.0f}" if more["messages_down"] else "-",
            f"{more['rest_up']}, {more['rest_down']}",
        ]
