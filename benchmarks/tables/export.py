"""Suite `export` as tables: a row a drafter, for each kind of text and for all of them."""

import statistics
from collections.abc import Iterator

from benchmarks.record import Result, Run
from benchmarks.tables.common import spread, table

__all__ = ["lines"]


def lines(result: Result) -> Iterator[str]:
    sizes = result.details["sizes"]
    target = result.settings["target"]
    yield f"Drafters for {target}, over {len({run.prompt for run in result.runs})} texts that it wrote."
    yield ""
    depths = list(result.runs[0].more["tokens_per_pass"])
    header = [
        "",
        "MB",
        "ms a token",
        "agreement",
        "KL, nats",
        "coverage",
        *(f"tokens a pass, {k} drafts" for k in depths),
    ]
    yield from table(
        header,
        (
            [way.name, f"{sizes[way.name] / 1e6:.0f}", *_cells(result.select(way=way.name), depths)]
            for way in result.ways
        ),
    )
    yield ""
    yield "Agreement by kind of text."
    yield ""
    yield from table(
        ["", *result.kinds],
        (
            [way, *(f"{_mean(result.select(way=way, kind=kind), 'agreement'):.3f}" for kind in result.kinds)]
            for way in result.names()
        ),
    )
    yield ""
    yield from (f"- {way.name}: {way.note}" for way in result.ways if way.note)


def _cells(runs: list[Run], depths: list[str]) -> list[str]:
    return [
        spread([run.more["ms_per_token"] for run in runs], digits=1),
        f"{_mean(runs, 'agreement'):.3f}",
        f"{_mean(runs, 'kl'):.4f}",
        f"{_mean(runs, 'coverage'):.4f}",
        *(f"{statistics.mean(run.more['tokens_per_pass'][depth] for run in runs):.2f}" for depth in depths),
    ]


def _mean(runs: list[Run], name: str) -> float:
    """Over all tokens: a short answer counts less."""
    total = sum(run.num_tokens for run in runs)
    return sum(float(run.more[name]) * run.num_tokens for run in runs) / total if total else 0.0
