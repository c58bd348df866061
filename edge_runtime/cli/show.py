"""Answers as they come: text on standard output, figures and what is to be known of it after it."""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

from edge_runtime.answer import Answering
from edge_runtime.cli.output import console, print_json
from edge_runtime.cli.screen import Screen
from edge_runtime.events import Finished
from edge_runtime.report import Report

__all__ = ["figures_of", "show"]


async def show(
    answers: AsyncGenerator[tuple[int, Answering], None],
    seed: int,
    *,
    as_json: bool,
    screen: Screen | None = None,
    tuned: str = "",
    is_kept: bool = True,
) -> Finished | None:
    """Every answer as it comes, with its figures after it; or an object, a line, for each. Gives how the last ended.

    `screen` is where the first is written. `tuned` names the setting in use, if any. Of what is not kept nobody is told
    that `sync` verifies it.
    """
    last = None
    screen = screen or Screen(is_silent=as_json)
    async with aclosing(answers) as events:
        async for number, event in events:
            if isinstance(event, Finished):
                screen.end()
                _finish(screen, event, seed + number, tuned, as_json=as_json, is_kept=is_kept)
                screen, last = Screen(is_silent=as_json), event
            else:
                screen.take(event)
    return last


def _finish(screen: Screen, finished: Finished, seed: int, tuned: str, *, as_json: bool, is_kept: bool) -> None:
    report, tokens = finished.report, screen.tokens
    if as_json:
        token_ids = [token.token_id for token in tokens]
        answer: dict[str, object] = {"text": screen.text, "token_ids": token_ids, "finish_reason": finished.reason}
        if tokens and tokens[0].logprob is not None:
            answer["logprobs"] = [{"logprob": token.logprob, "top": token.top_logprobs} for token in tokens]
        print_json({**answer, "seed": seed, **figures_of(report), "tuned": tuned or None})
    else:
        sys.stdout.write("\n")
        sys.stdout.flush()
        console.print()
        is_alone = report.num_provisional and not report.num_tokens
        if not is_alone:
            paced, first = "", "first token"
            if report.tokens_per_s:
                paced = (
                    f"{report.tokens_per_s:.1f} tokens/s, {report.tokens_per_pass:.2f} tokens per pass, "
                    f"{report.acceptance:.0%} of {report.num_drafted} drafts accepted, "
                )
            elif report.num_tokens > 1:  # a search: all of it comes when it is over, and nobody tells its passes
                first = "all"
            console.print(
                f"{report.num_tokens} tokens, {paced}{report.bytes_per_token:.1f} bytes a token, "
                f"{first} after {report.first_token_ms:.0f} ms",
                style="dim",
            )
        if report.num_provisional:
            which = f"{'All' if is_alone else 'The last'} {report.num_provisional} tokens are the drafter's own"
            console.print(which + ("; outrider sync has them verified" if is_kept else ""), style="dim")
    if finished.not_kept is not None:
        console.print(f"outrider: this answer is not in the journal: {finished.not_kept}")


def figures_of(report: Report) -> dict[str, object]:
    return {
        "target": report.target,
        "counts": {
            "prompt": report.num_prompt,
            "tokens": report.num_tokens,
            "provisional": report.num_provisional,
            "retracted": report.num_retracted,
            "passes": report.num_passes,
            "drafted": report.num_drafted,
            "accepted": report.num_accepted,
            "accepted_by": report.accepted_by,
            "bytes_up": report.bytes_up,
            "bytes_down": report.bytes_down,
        },
        "times": {"first_token_ms": report.first_token_ms, "total_ms": report.total_ms},
        "tokens_per_s": report.tokens_per_s or None,
        "tokens_per_pass": report.tokens_per_pass,
        "acceptance": report.acceptance,
        "bytes_per_token": report.bytes_per_token,
    }
