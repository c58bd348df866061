"""What a suite measured, as it is kept: every single run, where it was measured, and how. One shape for all suites.

Tables and plots are made from this alone, so that a figure can be drawn again without measuring. Knows no model, no
clock and no screen.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.environment import Environment
from edge_runtime.report import Report
from outrider.errors import InvalidParameter
from outrider.wire import pack_ids

__all__ = ["SCHEMA", "Answer", "Missing", "Published", "Result", "Run", "Way", "load", "save"]

SCHEMA = 1
UNLIKE = 1.25  # runs of one way that differ by more were disturbed


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one generation gave. None: nobody counted it."""

    token_ids: list[int]
    seconds: float  # from the first token to the last
    first_s: float  # until the first token, the prompt included
    passes: int | None = None  # of the target
    drafted: int | None = None
    accepted: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None

    @classmethod
    def of(cls, token_ids: list[int], report: Report) -> "Answer":
        first_s, total_s = report.first_token_ms / 1000, report.total_ms / 1000
        return cls(
            token_ids=token_ids,
            seconds=total_s - first_s,
            first_s=first_s,
            passes=report.num_passes,
            drafted=report.num_drafted,
            accepted=report.num_accepted,
            bytes_up=report.bytes_up,
            bytes_down=report.bytes_down,
        )


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One answer to one prompt, one way."""

    kind: str
    prompt: str  # its id
    way: str
    setting: str = ""  # of the way, where it has several
    rtt_ms: float | None = None
    num_sessions: int | None = None
    num_tokens: int
    seconds: float
    first_s: float
    passes: int | None = None
    drafted: int | None = None
    accepted: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    digest: str  # of the token ids: equal digests, equal answers
    more: dict[str, Any] = {}  # what only this suite counts

    @classmethod
    def of(cls, answer: Answer, kind: str, prompt: str, way: str, **more: Any) -> "Run":
        fields = {name: getattr(answer, name) for name in answer.__struct_fields__ if name != "token_ids"}
        digest = hashlib.sha256(pack_ids(answer.token_ids)).hexdigest()[:16]
        num_tokens = len(answer.token_ids)
        return cls(kind=kind, prompt=prompt, way=way, num_tokens=num_tokens, digest=digest, **fields, **more)

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first, over the time after the first."""
        return (self.num_tokens - 1) / self.seconds if self.num_tokens > 1 and self.seconds > 0 else 0.0

    @property
    def tokens_per_pass(self) -> float | None:
        return self.num_tokens / self.passes if self.passes else None


class Way(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One way to the same answers: a row of a table, a line of a plot."""

    name: str
    role: Literal["alone", "baseline", "ours", "peer"]
    note: str = ""  # what one should know of it: its weights, its settings
    equals: str = ""  # the way whose tokens it must give, one for one


class Missing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    reason: str


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure of somebody else's, measured or computed elsewhere."""

    name: str
    figure: str
    conditions: str
    source: str


class Result(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    schema: int = SCHEMA
    suite: str
    command: list[str]
    environment: Environment
    settings: dict[str, Any]
    ways: list[Way]
    runs: list[Run] = []
    warm_ups: list[Run] = []  # not in any figure
    missing: list[Missing] = []  # what could not run here
    published: list[Published] = []
    profiles: dict[str, dict[int, float]] = {}  # model -> tokens in a pass -> milliseconds, as stored with it
    details: dict[str, Any] = {}  # what only this suite knows
    partial: str = ""  # how much of it was measured, where that is not all; kept while it runs
    elapsed_s: float = 0.0

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(run.kind for run in self.runs))

    def names(self, *roles: str) -> list[str]:
        return [way.name for way in self.ways if not roles or way.role in roles]

    def select(self, **wanted: Any) -> list[Run]:
        """The runs that have all of this, in the order in which their prompts came."""
        return [run for run in self.runs if all(getattr(run, name) == value for name, value in wanted.items())]

    def ratios(self, way: str, base: str, **wanted: Any) -> list[float]:
        """Speed relative to another way's on the same prompt, a number a prompt."""
        speeds = {run.prompt: run.tokens_per_s for run in self.select(way=base, **wanted)}
        mine = self.select(way=way, **wanted)
        return [run.tokens_per_s / speeds[run.prompt] for run in mine if speeds.get(run.prompt)]

    def together(self, way: str, base: str, **wanted: Any) -> float | None:
        """Tokens over seconds of all prompts as one, relative to another way's: what waiting for all of them saves."""
        speeds = []
        for each in (way, base):
            runs = self.select(way=each, **wanted)
            seconds = sum(run.seconds for run in runs)
            speeds.append(sum(max(0, run.num_tokens - 1) for run in runs) / seconds if seconds else 0.0)
        return speeds[0] / speeds[1] if all(speeds) else None

    def untrue(self) -> list[str]:
        """Runs whose tokens are not those that they must be."""
        must = {way.name: way.equals for way in self.ways if way.equals}
        said = {(run.way, run.kind, run.prompt): run.digest for run in reversed(self.runs)}  # the first that it said
        return [
            f"{run.way}: {run.kind}, {run.prompt}"
            for run in self.runs
            if run.way in must and run.digest != said.get((must[run.way], run.kind, run.prompt))
        ]

    @property
    def num_checked(self) -> int:
        must = {way.name for way in self.ways if way.equals}
        return sum(run.way in must for run in self.runs)

    @property
    def is_exact(self) -> bool:
        return not self.untrue()

    def disturbed(self) -> list[str]:
        """What says that the machine was not quiet, in words."""
        words = []
        load = self.environment.load
        if load is not None and load > 0.5 * self.environment.cores:
            words.append(f"load {load:.1f} before it began")
        by_way: dict[str, list[float]] = {}
        for run in self.warm_ups:
            if run.way in self.names("alone"):  # nothing there learns from run to run
                by_way.setdefault(f"{run.way}, {run.kind}", []).append(run.tokens_per_s)
        for way, speeds in by_way.items():
            if min(speeds) > 0 and max(speeds) / min(speeds) > UNLIKE:
                words.append(f"{way} warmed up at {min(speeds):.1f} to {max(speeds):.1f} tokens/s")
        return words


def save(result: Result, file: Path) -> None:
    """Written in one step: whoever reads sees the old one or the new one. Raises InvalidParameter."""
    half = file.with_name(f".{file.name}.half")
    try:
        half.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
        os.replace(half, file)
    except OSError as error:
        raise InvalidParameter(f"{file} cannot be written ({error.strerror}); ask again with another file") from None


def load(file: Path) -> Result:
    """Raises InvalidParameter for what is no result of this version."""
    try:
        data = file.read_bytes()
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema != SCHEMA:
            raise InvalidParameter(f"{file} is of version {schema}, this program reads {SCHEMA}; measure again")
        return msgspec.json.decode(data, type=Result)
    except OSError as error:
        raise InvalidParameter(f"{file} cannot be read ({error.strerror}); give a file of `bench --json`") from None
    except msgspec.MsgspecError as error:
        raise InvalidParameter(f"{file} is no benchmark's result ({error}); give a file of `bench --json`") from None


class _Head(msgspec.Struct):
    schema: int
