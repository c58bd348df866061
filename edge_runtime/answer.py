"""One answer as an app sees it: the session's events with their text, kept in the journal, a receipt at the end.

Knows no models and no link.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from edge_runtime.energy import EnergyMeter
from edge_runtime.events import Alone, Event, Finished, Retracted, Standing, Token
from edge_runtime.evidence import Provenance, make_receipt
from edge_runtime.frontier import REMEMBERED
from edge_runtime.journal import Scribe
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from edge_runtime.text import AnswerText
from outrider import catalog
from outrider.errors import OutriderError
from outrider.tokens import TextCodec

__all__ = ["Answering", "Piece", "tell"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One token and the text it completes: empty inside a character, inside what may become a stop string, for control
    tokens, and where a token that was provisional is confirmed.

    Text without a token is what was left when the answer ended inside a character or the beginnings of a stop string.
    """

    text: str
    token: Token | None


Answering = Piece | Alone | Retracted | Standing | Finished


async def tell(
    session: Session, request: GenerationRequest, codec: TextCodec, stop: Sequence[str], scribe: Scribe
) -> AsyncGenerator[Answering, None]:
    """What the generation has already, if it was begun before, and then what the session tells."""
    start = len(request.prompt_ids)
    text, provenance, meter = AnswerText(codec, stop), Provenance(), EnergyMeter()
    told: list[Answering] = []  # of the step under way

    def tell_one(event: Event) -> None:
        if isinstance(event, Retracted):
            provenance.retract(event.position - start)
            told.append(replace(event, num_chars=text.retract(event.position - start)))
        elif isinstance(event, Token):
            length = event.position - start + 1
            new = ""
            if length <= len(text.token_ids):
                provenance.confirm(length)
            else:
                provenance.append(event.drafted_by, is_verified=event.is_verified)
                new = text.append(event.token_id)
            told.append(Piece(new, event))
        else:
            told.append(event)

    async def keep(events: Sequence[Event], target: str) -> None:
        """A step, up to the answer's end: what comes after a stop string is not of the answer."""
        step: list[Event] = []
        for event in events:
            step.append(event)
            tell_one(event)
            if text.is_hit and isinstance(event, Token) and event.position - start + 1 == len(text.token_ids):
                session.report.num_provisional = provenance.num_provisional
                step.append(Finished("stop", session.report))
                tell_one(step[-1])
                break
        await scribe.write(step, target)

    def last_words(finished: Finished) -> list[Answering]:
        rest = text.flush()
        receipt = None
        if request.wants_signature:
            receipt = make_receipt(
                request.prompt_ids,
                text.token_ids,
                finished.reason,
                params=request.params,
                vocabulary=request.vocabulary,
                report=finished.report,
                provenance=provenance,
                drafters={name: _fingerprint(name) for name in finished.report.accepted_by},
                energy=meter.read(),
                seal=finished.seal,
            )
        end = replace(finished, receipt=receipt, not_kept=scribe.not_kept)
        return [Piece(rest, None), end] if rest else [end]

    for token in _remembered(request):
        tell_one(token)
    for piece in told:
        yield piece
    told.clear()
    if (reason := _end(request, text)) is not None:
        await scribe.write([Finished(reason, session.report)])
        for event in last_words(Finished(reason, session.report)):
            yield event
        return
    async with aclosing(session.generate(request, keep)) as events:
        async for happened in events:  # the first of a step: all of it is kept
            if isinstance(happened, Standing):
                yield happened
            for event in told:
                if isinstance(event, Finished):
                    for last in last_words(event):  # before the link is closed, which takes a round trip
                        yield last
                    return
                yield event
            told.clear()


def _remembered(request: GenerationRequest) -> list[Token]:
    start, num_verified = len(request.prompt_ids), len(request.verified_ids)
    author, _ = REMEMBERED
    return [
        Token(start + n, token_id, None if n < num_verified else author, is_verified=n < num_verified)
        for n, token_id in enumerate([*request.verified_ids, *request.provisional_ids])
    ]


def _end(request: GenerationRequest, text: AnswerText) -> str | None:
    """How an answer that is verified whole has ended; a crash may have come before that was written."""
    if request.provisional_ids or not text.token_ids:
        return None
    if text.is_hit or text.token_ids[-1] in request.stop_ids:
        return "stop"
    return "length" if len(text.token_ids) >= request.max_tokens else None


def _fingerprint(drafter: str) -> str:
    """Of a drafter's weights; "" for one without any."""
    try:
        return catalog.find(drafter).manifest.fingerprint
    except OutriderError:
        return ""
