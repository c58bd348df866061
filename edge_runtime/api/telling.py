"""An answer as a client of the endpoint may hear it: text that stands, or text that may be taken back, never mixed.

A client that did not ask for provisional text cannot take text back. It hears a provisional token when that is
verified, or when the answer has ended with it: then nothing can retract it any more. Knows no shape of messages.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from edge_runtime.answer import Answering, Piece
from edge_runtime.energy import EnergyMeter
from edge_runtime.events import Finished, Retracted, Standing, Token
from edge_runtime.report import Report

__all__ = ["Confirmed", "Ended", "Part", "Telling", "telling"]


@dataclass(frozen=True, slots=True)
class Part:
    """More text, the verified tokens that it was made of, and where somebody watches, of each token who guessed it."""

    text: str
    is_verified: bool
    tokens: tuple[Token, ...] = ()
    by: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The answer's first `num_chars` characters are verified by now."""

    num_chars: int


@dataclass(frozen=True, slots=True)
class Ended:
    reason: str
    num_tokens: int
    report: Report
    energy_j: float | None = None
    is_watched: bool = False

    @property
    def is_verified(self) -> bool:
        return self.report.num_provisional == 0


Telling = Part | Confirmed | Retracted | Standing | Ended


async def telling(
    events: AsyncGenerator[Answering, None], *, shows_provisional: bool, is_watched: bool = False
) -> AsyncGenerator[Telling, None]:
    """The events of one answer; Ended is the last. With `is_watched` authors, steps and energy are told as well."""
    meter = EnergyMeter() if is_watched else None
    unverified: list[tuple[int, str]] = []  # positions and their text, told already where it shows provisional text
    tokens: list[Token] = []  # whose text is not told yet
    first = end = 0  # positions
    num_confirmed = 0
    rest = ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Piece):
                token = event.token
                if token is None:
                    rest = event.text
                    continue
                first = first or token.position
                end = max(end, token.position + 1)
                if not token.is_verified:
                    unverified.append((token.position, event.text))
                    if shows_provisional and event.text:
                        by = (token.drafted_by,) if is_watched else None
                        yield Part(event.text, is_verified=False, by=by)
                    continue
                confirmed = "".join(text for position, text in unverified if position <= token.position)
                unverified = [each for each in unverified if each[0] > token.position]
                tokens.append(token)
                if shows_provisional and confirmed:
                    tokens = []  # told when it was provisional
                num_confirmed += len(confirmed) + len(event.text)
                if shows_provisional and confirmed:
                    yield Confirmed(num_confirmed - len(event.text))
                    confirmed = ""
                if confirmed or event.text:
                    authors = tuple(each.drafted_by for each in tokens) if is_watched else None
                    yield Part(confirmed + event.text, is_verified=True, tokens=tuple(tokens), by=authors)
                    tokens = []
            elif isinstance(event, Retracted):
                retracted = "".join(text for position, text in unverified if position >= event.position)
                unverified = [each for each in unverified if each[0] < event.position]
                end = event.position
                if shows_provisional and retracted:
                    yield event
            elif isinstance(event, Standing):
                yield event
            elif isinstance(event, Finished):
                is_verified = event.report.num_provisional == 0
                held = "" if shows_provisional else "".join(text for _, text in unverified)
                if held or rest:
                    yield Part(held + rest, is_verified, tuple(tokens) if rest else ())
                energy_j = meter.read().joules if meter else None
                yield Ended(event.reason, end - first, event.report, energy_j, is_watched)
