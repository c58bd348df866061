"""One answer at a time is drafted for; those beside it are the target's own all the same, or wait their turn."""

import asyncio
import socket
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.answer import Piece
from edge_runtime.api import Modes
from edge_runtime.api.modes import Mode
from edge_runtime.events import Finished, Retracted
from edge_runtime.journal import Journal
from edge_runtime.options import TokenIds
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from outrider.errors import InvalidToken, UnknownModel
from tests.edge_runtime.api.test_provisional import Device, device
from tests.edge_runtime.api.tiny import SETTINGS

__all__ = ["device"]

FIRST, SECOND = TokenIds([5, 6, 7]), TokenIds([9, 9, 8])
PARAMS = SamplingParams(logit_bias=((0, -100.0), (2, -100.0)))


async def heard(events: Any) -> tuple[list[int], Finished]:
    async with aclosing(events) as events:
        *pieces, finished = [event async for event in events if isinstance(event, Piece | Finished)]
    return [piece.token.token_id for piece in pieces if piece.token is not None], finished


def test_beside_an_answer_that_is_drafted_for_the_target_answers_alone(
    pair: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted: list[tuple[int, ...]] = []
    assert pair.drafter is not None
    propose = pair.drafter.propose

    def noting(token_ids: Any, *arguments: Any) -> Any:
        drafted.append(tuple(token_ids[:3]))
        return propose(token_ids, *arguments)

    monkeypatch.setattr(pair.drafter, "propose", noting)
    mode = Modes(pair, is_remote=False).find("auto")

    async def main() -> None:
        want, _ = await heard(pair.generate(SECOND, PARAMS, max_tokens=20))
        drafted.clear()
        first = mode.answer(FIRST, PARAMS, max_tokens=20)
        await anext(first)
        beside, finished = await heard(mode.answer(SECOND, PARAMS, max_tokens=20))
        assert beside == want
        assert finished.report.num_provisional == 0
        assert set(drafted) <= {FIRST}
        await first.aclose()
        alone, _ = await heard(mode.answer(SECOND, PARAMS, max_tokens=20))
        assert alone == want
        assert SECOND in drafted

    asyncio.run(main())


def test_an_answer_that_nobody_hears_out_is_nobody_s_to_finish(home: Path, tmp_path: Path) -> None:
    async def main(mode: Mode) -> None:
        await heard(mode.answer(FIRST, PARAMS, max_tokens=6))
        left = mode.answer(SECOND, PARAMS, max_tokens=400)
        await anext(left)
        await left.aclose()
        with pytest.raises(InvalidToken):  # refused before its first word
            await heard(mode.answer(TokenIds([10**9]), PARAMS, max_tokens=6))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        with Journal(tmp_path / "journal") as journal:
            with Runtime.local("tiny", "tiny", SETTINGS, journal=journal) as runtime:
                asyncio.run(main(Modes(runtime, is_remote=False, journal=journal).find("auto")))
            assert journal.unfinished() == journal.pending() == []
            kept = [generation for one in journal.conversations() for generation in journal.generations(one.name)]
            assert [(len(one.token_ids), one.finish) for one in kept[:1]] == [(6, "length")]
            assert [(0 < len(one.token_ids) < 400, one.finish) for one in kept[1:]] == [(True, "stopped")]


@pytest.mark.parametrize("drafter", ["tiny", "other"], ids=["right", "wrong"])
def test_what_was_said_offline_of_it_is_verified_and_no_more(home: Path, tmp_path: Path, drafter: str) -> None:
    async def leave(mode: Mode) -> None:
        said = mode.answer(FIRST, PARAMS, max_tokens=400)
        async with aclosing(said):
            num_said = 0
            async for event in said:
                num_said += isinstance(event, Piece)
                if num_said == 5:
                    return

    async def heard_to_the_retraction(runtime: Runtime, number: int) -> None:
        """As one hears whom a crash then ends."""
        async with aclosing(runtime.resume(number)) as events:
            async for event in events:
                if isinstance(event, Retracted):
                    return

    with pytest.MonkeyPatch.context() as patch, Journal(tmp_path / "journal") as journal:
        patch.setenv("OUTRIDER_HOME", str(home))
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        with Runtime.remote(f"http://127.0.0.1:{port}", "tiny", drafter, SETTINGS, journal=journal) as runtime:
            asyncio.run(leave(Modes(runtime, is_remote=True, journal=journal).find("auto")))
        assert journal.unfinished() == []
        [left] = journal.pending()
        assert left.finish == "stopped"
        assert 5 <= len(left.provisional_ids) < 50
        with Runtime.local("tiny", "none", SETTINGS, journal=journal) as runtime:
            if drafter == "other":
                asyncio.run(heard_to_the_retraction(runtime, left.id))
                assert [one.id for one in journal.unfinished()] == [left.id]
            asyncio.run(heard(runtime.resume(left.id)))
            want, _ = asyncio.run(heard(runtime.generate(FIRST, PARAMS, max_tokens=len(left.token_ids), is_kept=False)))
        assert journal.unfinished() == journal.pending() == []
        assert journal.generation(left.id).verified_ids == want


def test_offline_answers_asked_for_at_once_wait_for_the_drafter(device: Device) -> None:
    mode = Modes(device.runtime, is_remote=True).find("auto")

    async def main() -> list[tuple[list[int], Finished]]:
        return await asyncio.gather(*(heard(mode.answer(each, PARAMS, max_tokens=12)) for each in (FIRST, SECOND)))

    for token_ids, finished in asyncio.run(main()):
        assert len(token_ids) == finished.report.num_provisional == 12


def test_a_way_of_answering_that_is_not_there_says_what_it_wants(pair: Runtime) -> None:
    modes = Modes(pair, is_remote=False, model="local")
    assert modes.names == ["auto", "local"]
    for name in ("hybrid", "cloud"):
        with pytest.raises(UnknownModel, match="--verifier"):
            modes.find(name)
