"""What chat and plain completions are written with: their head, their usage, their notes, and the stream of chunks."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from edge_runtime.api.asking import Asked
from edge_runtime.api.errors import error_reply
from edge_runtime.api.replies import ChatCompletion, Completion, Figures, Note, Usage, event
from edge_runtime.api.telling import Ended, Part, Telling
from edge_runtime.events import Standing
from edge_runtime.report import Report
from outrider.errors import OutriderError

__all__ = [
    "Header",
    "Writer",
    "note_of",
    "note_of_part",
    "note_of_step",
    "state_of",
    "usage_of",
    "write_stream",
    "write_whole",
]

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Header:
    """What every object of one reply begins with. `n`: answers to each prompt."""

    model: str
    n: int = 1
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def of_whole(self, ends: Sequence[Ended]) -> dict[str, Any]:
        return {
            "id": f"outrider-{self.id}",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint_of(ends),
        }


class Writer(Protocol):
    """Shapes what is told of a request's answers."""

    chunk_kind: str

    def opening(self, index: int) -> dict[str, Any] | None: ...
    def choices(self, index: int, told: Telling) -> list[tuple[dict[str, Any], Note]]: ...
    def whole(self, header: Header, answers: Sequence[Sequence[Telling]], seed: int) -> ChatCompletion | Completion: ...


async def write_whole(writer: Writer, asked: Asked, header: Header) -> ChatCompletion | Completion:
    """Every answer in one object. Raises what the generation does."""
    answers: list[list[Telling]] = [[] for _ in range(len(asked.prompts) * asked.n)]
    async with aclosing(asked.answers()) as telling:
        async for index, told in telling:
            answers[index].append(told)
    return writer.whole(header, answers, asked.params.seed)


async def write_stream(writer: Writer, asked: Asked, header: Header, *, has_usage: bool) -> AsyncGenerator[bytes, None]:
    """Server-sent events, none before something is told. An error before that is raised; later it is the last event."""
    ends: list[Ended] = []
    has_begun = False
    opened: set[int] = set()

    def chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
        unused = {"usage": None} if has_usage else {}
        return event({**header.of_whole(ends), "object": writer.chunk_kind, "choices": choices, **unused, **more})

    try:
        async with aclosing(asked.answers()) as telling:
            async for index, told in telling:
                has_begun = True
                if index not in opened:
                    opened.add(index)
                    if (opening := writer.opening(index)) is not None:
                        yield chunk([opening])
                if isinstance(told, Ended):
                    ends.append(told)
                for choice, note in writer.choices(index, told):
                    ends_answer = choice["finish_reason"] is not None
                    seed = asked.seed_of(index) if ends_answer else msgspec.UNSET
                    yield chunk([choice], x_outrider=msgspec.structs.replace(note, seed=seed))
        note = note_of(*ends, seed=asked.params.seed)
        if has_usage:
            yield chunk([], usage=usage_of(ends, header.n), x_outrider=note)
        yield DONE
    except OutriderError as error:
        if not has_begun:
            raise
        yield event(msgspec.to_builtins(error_reply(error)))


def state_of(is_verified: bool) -> Literal["verified", "provisional"]:
    return "verified" if is_verified else "provisional"


def note_of(*ends: Ended, seed: int | msgspec.UnsetType = msgspec.UNSET) -> Note:
    """Of whole answers together: one that is not verified makes all of it provisional."""
    reports = [ended.report for ended in ends]
    return Note(
        state=state_of(all(ended.is_verified for ended in ends)),
        seed=seed,
        provisional=sum(report.num_provisional for report in reports),
        drafted=sum(report.num_drafted for report in reports),
        accepted=sum(report.num_accepted for report in reports),
        passes=sum(report.num_passes for report in reports),
        figures=figures_of(ends[0].report, ends[0].energy_j)
        if len(ends) == 1 and ends[0].is_watched
        else msgspec.UNSET,
    )


def note_of_part(part: Part) -> Note:
    return Note(state=state_of(part.is_verified), by=msgspec.UNSET if part.by is None else list(part.by))


def note_of_step(standing: Standing) -> Note:
    report = standing.report
    verified = standing.frontier - report.num_prompt
    return Note(frontier=verified, ahead=standing.num_ahead, figures=figures_of(report))


def figures_of(report: Report, energy_j: float | None = None) -> Figures:
    return Figures(
        report.num_tokens,
        report.num_passes,
        report.num_drafted,
        report.num_accepted,
        report.num_retracted,
        report.bytes_up,
        report.bytes_down,
        report.rtt_ms,
        report.total_ms,
        energy_j,
    )


def usage_of(ends: Sequence[Ended], n: int) -> Usage:
    """A prompt counts once, however many answers it gets."""
    prompt = sum(ended.report.num_prompt for ended in ends[::n])
    completion = sum(ended.num_tokens for ended in ends)
    return Usage(prompt, completion, prompt + completion)


def fingerprint_of(ends: Sequence[Ended]) -> str | None:
    """Names the target's weights, once it is known: with it and a seed the same answer comes again."""
    targets = {ended.report.target for ended in ends}
    return f"fp_{targets.pop()[:12]}" if len(targets) == 1 and "" not in targets else None
