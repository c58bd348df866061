"""Generations whose verifier signs, over a real link, and the receipts that a device makes of them."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.signing import Signer, load_signer
from cloud_verifier.verifier import Verifier
from edge_runtime.evidence import Provenance, Seal, make_receipt
from edge_runtime.links import Link
from edge_runtime.report import Report
from outrider.choice import SamplingParams
from outrider.receipt import Energy
from outrider.wire import Draft, Open, Opened, Params, Verified, pack_ids, unpack_ids
from tests.toy import ToyEngine

PROMPT = [1, 2, 3]
SAMPLED = SamplingParams(temperature=1.0, top_p=0.95, seed=3)


@dataclass
class Generated:
    """What one generation was, as the device saw it."""

    params: SamplingParams
    opened: Opened
    token_ids: list[int]
    finish: str
    signature: bytes
    num_opened: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    report: Report = field(default_factory=Report)

    def receipt(self) -> bytes:
        return make_receipt(
            PROMPT,
            self.token_ids,
            self.finish,
            params=self.params,
            vocabulary=self.opened.vocabulary,
            report=self.report,
            provenance=self.provenance,
            drafters={"scripted": ""},
            energy=Energy(None, "unknown"),
            seal=Seal(self.signature, self.opened.public_key, self.num_opened) if self.signature else None,
        )


def signer() -> Signer:
    with tempfile.TemporaryDirectory() as folder:
        return load_signer(Path(folder) / "key.pem")


def signing_loop(own: Signer | None) -> VerifierLoop:
    return VerifierLoop(Verifier(ToyEngine(), target="t", vocabulary="v", signer=own))


def generate(
    link: Link,
    params: SamplingParams = SAMPLED,
    *,
    earlier_ids: Sequence[int] = (),
    drafts: Sequence[int] = (),
    num_tokens: int = 12,
    wants_signature: bool = True,
) -> Generated:
    """Opens the link's verifier with the prompt and `earlier_ids` and hears it to the end.

    `drafts` are for the positions after those; the first is not sent, because the verifier takes its first step alone.
    """

    async def run() -> Generated:
        await link.open()
        token_ids = [*PROMPT, *earlier_ids]
        limit = len(PROMPT) + num_tokens
        open_ids = pack_ids(token_ids)
        await link.send(Open("v", "", Params.of(params), limit, -1, b"", open_ids, wants_signature=wants_signature))
        opened = await link.receive()
        assert isinstance(opened, Opened)
        found = Generated(params, opened, list(earlier_ids), "", b"", len(earlier_ids))
        for _ in earlier_ids:
            found.provenance.append(None)
        epoch, waiting = 1, list(drafts)
        while not found.finish:
            said = await link.receive()
            assert isinstance(said, Verified)
            ids = unpack_ids(said.token_ids)
            for offset in range(len(ids)):
                found.provenance.append("scripted" if offset < said.num_accepted else None)
            found.token_ids += ids
            is_first, is_miss = len(found.token_ids) == len(earlier_ids) + 1, waiting[: len(ids)] != ids
            waiting = waiting[len(ids) :] if is_first or not is_miss else []
            epoch += is_miss
            if not said.finish and (is_first or not waiting):  # else the verifier goes on with the rest by itself
                await link.send(Draft(epoch, len(PROMPT) + len(found.token_ids), pack_ids(waiting)))
            found.report.num_drafted += said.num_drafted
            found.finish, found.signature = said.finish or "", said.signature
        await link.close()
        found.report.target = opened.target
        found.report.bytes_up, found.report.bytes_down = link.bytes_up, link.bytes_down
        return found

    return asyncio.run(run())
