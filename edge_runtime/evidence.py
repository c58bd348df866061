"""Writes the receipt of a finished generation, from what the session saw of it. Knows no link and no screen."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from edge_runtime.report import Report
from outrider.choice import SamplingParams
from outrider.receipt import Counts, Energy, Models, Receipt, Run, Times, state, to_sign

__all__ = ["Provenance", "Seal", "make_receipt"]

TARGET = "target"


@dataclass(frozen=True, slots=True)
class Seal:
    """What the verifier stands by: the answer after its first `num_opened` tokens, which an earlier session chose."""

    signature: bytes
    public_key: bytes
    num_opened: int


class Provenance:
    """Who each token of an answer came from, as runs; follows the list as it grows, is confirmed and cut."""

    def __init__(self) -> None:
        self._tokens: list[tuple[str, bool]] = []  # by whom, and whether the target agrees
        self.num_retracted = 0

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def num_provisional(self) -> int:
        return sum(not is_verified for _, is_verified in self._tokens)

    def append(self, drafted_by: str | None, *, is_verified: bool = True) -> None:
        self._tokens.append((drafted_by or TARGET, is_verified))

    def confirm(self, length: int) -> None:
        """The target agrees with the first `length` tokens."""
        while length and not self._tokens[length - 1][1]:
            length -= 1
            self._tokens[length] = (self._tokens[length][0], True)

    def retract(self, length: int) -> None:
        """Keep the first `length` tokens."""
        self.num_retracted += len(self._tokens) - length
        del self._tokens[length:]

    def runs(self) -> list[Run]:
        runs: list[Run] = []
        for by, is_verified in self._tokens:
            if runs and (runs[-1].by, runs[-1].is_verified) == (by, is_verified):
                runs[-1] = Run(by, runs[-1].count + 1, is_verified)
            else:
                runs.append(Run(by, 1, is_verified))
        return runs


def make_receipt(
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    finish: str,
    *,
    params: SamplingParams,
    vocabulary: str,
    report: Report,
    provenance: Provenance,
    drafters: Mapping[str, str],
    energy: Energy,
    seal: Seal | None,
) -> bytes:
    """The receipt as it is kept, one line of JSON. `vocabulary` as the verifier named it. Unsigned without `seal`."""
    num_opened = seal.num_opened if seal else 0
    context_ids = [*prompt_ids, *token_ids[:num_opened]]
    statement = state(report.target, vocabulary, params, context_ids, token_ids[num_opened:], finish)
    runs = provenance.runs()
    receipt = Receipt(
        signed=msgspec.Raw(to_sign(statement)),
        public_key=seal.public_key.hex() if seal else None,
        signature=seal.signature.hex() if seal else None,
        models=Models(report.target, dict(drafters)),
        counts=Counts(
            prompt=len(prompt_ids),
            tokens=len(token_ids),
            drafted=report.num_drafted,
            accepted=sum(run.count for run in runs if run.by != TARGET and run.is_verified),
            corrected=sum(run.count for run in runs if run.by == TARGET),
            provisional=sum(run.count for run in runs if not run.is_verified),
            retracted=provenance.num_retracted,
        ),
        provenance=runs,
        bytes_up=report.bytes_up,
        bytes_down=report.bytes_down,
        times=Times(report.first_token_ms, report.total_ms, time.time()),
        energy=energy,
        earlier_ids=list(token_ids[:num_opened]),
    )
    return msgspec.json.encode(receipt) + b"\n"
