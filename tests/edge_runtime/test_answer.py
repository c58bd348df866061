"""An answer with a stop string, over a loss of the link: what stands after the string is nowhere kept."""

import asyncio
from pathlib import Path

import pytest

from edge_runtime.drafters import Drafter
from edge_runtime.journal import Asked, Journal
from outrider.tokens import TextCodec
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, target_alone
from tests.edge_runtime.device import OTHER, TARGET, Device, drafter_of, text_of, toy_codec
from tests.edge_runtime.test_offline import SlowEngine, drafter_alone, unused_port
from tests.edge_runtime.test_session import toy_loop
from tests.serving import serving

NUM_TOKENS = 60


@pytest.fixture
def codec(tmp_path: Path) -> TextCodec:
    return toy_codec(tmp_path / "model")


async def take_all(
    url: str, codec: TextCodec, drafter: Drafter | None, journal: Journal, asked: Asked | None
) -> Device:
    """A new answer, or with none asked for the journal's first gone on with."""
    device = Device(url, codec, drafter, journal)
    if asked is None:
        device.number = 1
        await device.resume()
    else:
        await device.begin(asked, answers_alone=True)
    await device.take(1000, 30)
    await device.aclose()
    assert device.screen.finished is not None
    assert device.screen.finished.not_kept is None
    return device


@pytest.mark.parametrize("seed", [TARGET, OTHER], ids=["right", "wrong"])
def test_an_answer_that_ended_alone_in_a_stop_string_is_confirmed_or_put_right(
    seed: int, codec: TextCodec, tmp_path: Path
) -> None:
    """The target says more in the same pass than was drafted; that is not of the answer, nor of the journal."""
    alone = drafter_alone(seed, SAMPLED, NUM_TOKENS)
    stop = [text_of(codec, alone)[1][20:22]]
    written, _ = text_of(codec, alone, stop)
    want, want_text = text_of(codec, target_alone(num_tokens=NUM_TOKENS), stop)
    asked = Asked(PROMPT, NUM_TOKENS, SAMPLED, vocabulary="v", stop=stop)
    with Journal(tmp_path / "journal.sqlite") as journal, toy_loop(SlowEngine()) as (loop, _), serving(loop) as url:
        offline = f"http://127.0.0.1:{unused_port()}"
        first = asyncio.run(take_all(offline, codec, drafter_of(seed), journal, asked))
        assert first.screen.provisional == written
        then = asyncio.run(take_all(url, codec, None, journal, None))
        assert (then.screen.verified, then.screen.text) == (want, want_text)
        found = journal.generation(1)
        assert (found.verified_ids, found.provisional_ids, found.finish) == (want, [], "stop")


def test_what_a_pass_says_after_a_stop_string_is_not_kept(codec: TextCodec, tmp_path: Path) -> None:
    """Whichever token of a pass completes the string."""
    whole = target_alone(num_tokens=NUM_TOKENS)
    text = text_of(codec, whole)[1]
    with toy_loop(SlowEngine()) as (loop, _), serving(loop) as url:
        for start in range(20, 26):
            stop = [text[start : start + 3]]
            want, want_text = text_of(codec, whole, stop)
            asked = Asked(PROMPT, NUM_TOKENS, SAMPLED, vocabulary="v", stop=stop)
            with Journal(tmp_path / f"{start}.sqlite") as journal:
                device = asyncio.run(take_all(url, codec, drafter_of(TARGET), journal, asked))
                assert (device.screen.verified, device.screen.text) == (want, want_text)
                assert journal.generation(1).token_ids == want
