"""An answer on the screen as it comes: text on standard output, figures and what is to be known of it after it.

Provisional text is dim on a terminal, and written anew from where the target differs. Elsewhere it is held back until
it is verified, or the answer has ended in it.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

from edge_runtime.answer import Answering, Piece
from edge_runtime.cli.output import console, print_json
from edge_runtime.events import Alone, Finished, Retracted, Token
from edge_runtime.report import Report

__all__ = ["figures_of", "show"]

DIM, NORMAL = "\x1b[2m", "\x1b[0m"


async def show(answers: AsyncGenerator[tuple[int, Answering], None], seed: int, *, as_json: bool) -> Finished | None:
    """Every answer as it comes, with its figures after it; or an object, a line, for each. Gives how the last ended."""
    last = None
    screen = _Screen(is_silent=as_json)
    async with aclosing(answers) as events:
        async for number, event in events:
            if isinstance(event, Finished):
                screen.end()
                _finish(screen, event, seed + number, as_json=as_json)
                screen, last = _Screen(is_silent=as_json), event
            else:
                screen.take(event)
    return last


class _Screen:
    def __init__(self, *, is_silent: bool) -> None:
        self.text = ""
        self.tokens: list[Token] = []
        self._is_silent = is_silent
        self._is_terminal = sys.stdout.isatty()
        self._held: list[tuple[int, str]] = []  # positions and their text, not written yet

    def take(self, event: Answering) -> None:
        if isinstance(event, Alone):
            if not self._is_silent:
                said = f"outrider: {event.reason}; meanwhile the drafter answers alone"
                console.print(said, markup=False, style="dim")
        elif isinstance(event, Retracted):
            self.tokens = [token for token in self.tokens if token.position < event.position]
            self._held = [(position, text) for position, text in self._held if position < event.position]
            self.text = self.text[: event.num_chars]
            if self._is_terminal:
                self._write("\n")
                console.print("outrider: the target says something else:", style="dim")
                self._write(self.text[self.text.rfind("\n") + 1 :])
        elif isinstance(event, Piece):
            self._take_piece(event)

    def _take_piece(self, piece: Piece) -> None:
        token = piece.token
        self.text += piece.text
        if token is None:
            self.end()
            self._write(piece.text)
        elif not token.is_verified:
            self.tokens.append(token)
            if self._is_terminal:
                self._write(f"{DIM}{piece.text}{NORMAL}")
            else:
                self._held.append((token.position, piece.text))
        else:
            self.tokens = [*(other for other in self.tokens if other.position != token.position), token]
            while self._held and self._held[0][0] <= token.position:
                self._write(self._held.pop(0)[1])
            self._write(piece.text)

    def end(self) -> None:
        """What is still held back is the answer's end, verified or not."""
        self._write("".join(text for _, text in self._held))
        self._held = []

    def _write(self, text: str) -> None:
        if not self._is_silent:
            sys.stdout.write(text)
            sys.stdout.flush()


def _finish(screen: _Screen, finished: Finished, seed: int, *, as_json: bool) -> None:
    report, tokens = finished.report, screen.tokens
    if as_json:
        token_ids = [token.token_id for token in tokens]
        answer: dict[str, object] = {"text": screen.text, "token_ids": token_ids, "finish_reason": finished.reason}
        if tokens and tokens[0].logprob is not None:
            answer["logprobs"] = [{"logprob": token.logprob, "top": token.top_logprobs} for token in tokens]
        print_json({**answer, "seed": seed, **figures_of(report)})
    else:
        sys.stdout.write("\n")
        sys.stdout.flush()
        console.print(
            f"\n{report.num_tokens} tokens, {report.tokens_per_s:.1f} tokens/s, "
            f"{report.tokens_per_pass:.2f} tokens per pass, "
            f"{report.acceptance:.0%} of {report.num_drafted} drafts accepted, "
            f"{report.bytes_per_token:.1f} bytes a token, first token after {report.first_token_ms:.0f} ms",
            style="dim",
        )
        if report.num_provisional:
            console.print(
                f"The last {report.num_provisional} tokens are the drafter's own; outrider sync has them verified",
                style="dim",
            )
    if finished.not_kept is not None:
        console.print(f"outrider: this answer is not in the journal: {finished.not_kept}", markup=False)


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
        "tokens_per_s": report.tokens_per_s,
        "tokens_per_pass": report.tokens_per_pass,
        "acceptance": report.acceptance,
        "bytes_per_token": report.bytes_per_token,
    }
