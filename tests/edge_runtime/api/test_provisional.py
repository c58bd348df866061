"""What no target has verified is never taken back from a client that did not ask for it, nor told as if it were."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud_verifier.server import create_server
from cloud_verifier.target import LocalVerifier
from edge_runtime.answer import Piece
from edge_runtime.api import Modes
from edge_runtime.breaker import Breaker, BreakerPolicy
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from tests.edge_runtime.api.test_openai_client import GO_ON, TOOLS
from tests.edge_runtime.api.tiny import HELLO, SETTINGS, client, endpoint
from tests.lazy import openai
from tests.serving import UNHURRIED, running

NUM_TOKENS = 80
WISH: Any = {"messages": HELLO, "temperature": 0, "max_tokens": NUM_TOKENS, "logit_bias": GO_ON}
PROVISIONAL = {"x_outrider": {"provisional": True}}
NUM_SHOWN = 12  # provisional tokens before the verifier comes
HANG_S = 30.0


@dataclass
class Device:
    """A device whose verifier is not there yet; `bring_up` has it come."""

    runtime: Runtime
    port: int
    target: LocalVerifier
    num_proposed: int = 0
    is_time: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def bring_up(self) -> Iterator[None]:
        with running(create_server(self.target.loop, UNHURRIED), self.port):
            yield


@pytest.fixture
def device(home: Path, target: LocalVerifier, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """Its drafter is of other weights than the target, and slow once it has said `NUM_SHOWN` tokens alone."""
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    runtime = Runtime.remote(f"http://127.0.0.1:{port}", "tiny", "other", SETTINGS)
    runtime._breaker = Breaker(BreakerPolicy(first_s=0.01, longest_s=0.03))
    device = Device(runtime, port, target)
    assert runtime.drafter is not None
    propose = runtime.drafter.propose

    def slow(*arguments: Any) -> Any:
        device.num_proposed += 1
        if device.num_proposed > NUM_SHOWN:
            device.is_time.set()
            time.sleep(0.02)
        return propose(*arguments)

    runtime.drafter.propose = slow  # type: ignore[method-assign]
    with runtime:
        yield device


@pytest.fixture
def url(device: Device) -> Iterator[str]:
    with endpoint(device.runtime, is_remote=True, model="tiny") as url:
        yield url


@pytest.fixture
def ai(url: str) -> Iterator[openai.OpenAI]:
    with client(url) as ai:
        yield ai


def said(runtime: Runtime) -> str:
    async def main() -> str:
        bias = tuple((int(token_id), float(bias)) for token_id, bias in GO_ON.items())
        events = runtime.generate(HELLO, SamplingParams(logit_bias=bias), max_tokens=NUM_TOKENS)
        return "".join([event.text async for event in events if isinstance(event, Piece)])

    return asyncio.run(main())


@pytest.fixture(scope="module")
def alone(home: Path) -> str:
    """What the drafter says by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        with Runtime.local("other", "none", SETTINGS) as runtime:
            return said(runtime)


@pytest.fixture(scope="module")
def verified(pair: Runtime) -> str:
    return said(pair)


def notes(chunks: list[Any]) -> list[dict[str, Any]]:
    return [chunk.x_outrider for chunk in chunks if hasattr(chunk, "x_outrider")]


def texts(chunks: list[Any]) -> list[tuple[str, str]]:
    """Each text, with its state."""
    return [(c.choices[0].delta.content, c.x_outrider["state"]) for c in chunks if c.choices[0].delta.content]


def test_offline_an_answer_says_that_it_is_provisional(url: str, ai: openai.OpenAI, alone: str) -> None:
    raw = ai.chat.completions.with_raw_response.create(model="auto", **{**WISH, "max_tokens": 20})
    answer: Any = raw.parse()
    assert raw.headers["x-outrider-state"] == "provisional"
    assert alone.startswith(answer.choices[0].message.content)
    assert answer.x_outrider["state"] == answer.choices[0].x_outrider["state"] == "provisional"
    assert answer.x_outrider["provisional"] == answer.usage.completion_tokens == 20
    assert answer.system_fingerprint is None  # no target had a say


def test_offline_a_stream_is_held_until_nothing_can_take_it_back(ai: openai.OpenAI, alone: str) -> None:
    chunks: list[Any] = list(ai.chat.completions.create(model="hybrid", stream=True, **{**WISH, "max_tokens": 20}))
    [(text, state)] = texts(chunks)
    assert alone.startswith(text)
    assert state == "provisional"
    assert chunks[-1].x_outrider["state"] == "provisional"


def test_offline_who_asks_hears_each_word_at_once(ai: openai.OpenAI, alone: str) -> None:
    wish = {**WISH, "max_tokens": 20}
    chunks: list[Any] = list(ai.chat.completions.create(model="auto", stream=True, extra_body=PROVISIONAL, **wish))
    told = texts(chunks)
    assert len(told) > 5
    assert {state for _, state in told} == {"provisional"}
    assert alone.startswith("".join(text for text, _ in told))
    header = {"X-Outrider-Provisional": "true"}
    again: list[Any] = list(ai.chat.completions.create(model="auto", stream=True, extra_headers=header, **wish))
    assert texts(again) == told


@pytest.mark.parametrize(
    ("strict", "stream"),
    [
        ({"extra_body": {"x_outrider": {"strict": True}}}, False),
        ({"extra_headers": {"X-Outrider-Strict": "true"}}, True),
        ({"logprobs": True}, False),
        ({"model": "cloud"}, True),
    ],
)
def test_offline_who_is_strict_gets_an_error(ai: openai.OpenAI, strict: dict[str, Any], stream: bool) -> None:
    with pytest.raises(openai.InternalServerError) as lost:
        ai.chat.completions.create(**{"model": "auto", "stream": stream, **WISH, **strict})
    assert (lost.value.status_code, lost.value.code) == (503, "link_lost")
    assert lost.value.response.headers["x-should-retry"] == "true"


def test_a_header_that_is_neither_true_nor_false_is_refused(url: str) -> None:
    body = {"model": "auto", "messages": HELLO}
    answer = httpx.post(f"{url}/chat/completions", json=body, headers={"X-Outrider-Strict": "perhaps"})
    assert answer.status_code == 400


def test_the_drafter_alone_says_all_at_once_as_nobody_takes_it_back(ai: openai.OpenAI, alone: str) -> None:
    assert [model.id for model in ai.models.list()] == ["auto", "hybrid", "cloud", "local", "tiny"]
    chunks: list[Any] = list(ai.chat.completions.create(model="local", stream=True, **{**WISH, "max_tokens": 20}))
    told = texts(chunks)
    assert len(told) > 5
    assert {state for _, state in told} == {"provisional"}
    assert alone.startswith("".join(text for text, _ in told))
    with pytest.raises(openai.BadRequestError) as refused:
        ai.chat.completions.create(model="local", **WISH, extra_body={"x_outrider": {"strict": True}})
    assert refused.value.param == "model"


def test_the_modes_share_one_target_and_one_drafter(device: Device) -> None:
    modes = Modes(device.runtime, is_remote=True)
    assert modes.find("auto").runtime is modes.find("hybrid").runtime is device.runtime
    assert modes.find("cloud").runtime.drafter is None
    assert modes.find("local").runtime.drafter is device.runtime.drafter
    assert device.runtime.drafter is not None


@pytest.mark.parametrize("stream", [False, True])
def test_back_online_a_plain_client_hears_the_target_alone(
    device: Device, ai: openai.OpenAI, verified: str, alone: str, stream: bool
) -> None:
    """Though the drafter had said something else meanwhile."""
    with bringing_up_in_time(device):
        answer: Any = ai.chat.completions.create(model="auto", stream=stream, **WISH)
        if stream:
            chunks = list(answer)
            told = texts(chunks)
            assert "".join(text for text, _ in told) == verified
            assert {note["state"] for note in notes(chunks)} == {"verified"}
            assert not any("retracted_from" in note for note in notes(chunks))
        else:
            assert answer.choices[0].message.content == verified
            assert answer.x_outrider["state"] == "verified"
    assert device.num_proposed > NUM_SHOWN
    assert not alone.startswith(verified[:8])


def test_back_online_who_asked_for_provisional_text_is_told_what_of_it_is_void(
    device: Device, ai: openai.OpenAI, verified: str
) -> None:
    with bringing_up_in_time(device):
        text, retracted, confirmed = "", [], 0
        for chunk in ai.chat.completions.create(model="auto", stream=True, extra_body=PROVISIONAL, **WISH):
            note: dict[str, Any] = getattr(chunk, "x_outrider", {})
            if "retracted_from" in note:
                retracted.append((len(text), note["retracted_from"]))
                text = text[: note["retracted_from"]]
            if "confirmed_to" in note:
                confirmed = note["confirmed_to"]
            text += chunk.choices[0].delta.content or ""
            assert verified.startswith(text[:confirmed])
    assert text == verified
    assert retracted
    assert all(after < before for before, after in retracted)


def test_with_tools_nothing_is_told_that_may_be_taken_back(device: Device, ai: openai.OpenAI) -> None:
    """An app acts on a call: that cannot be undone."""
    with bringing_up_in_time(device):
        chunks: list[Any] = list(
            ai.chat.completions.create(model="auto", stream=True, tools=TOOLS, extra_body=PROVISIONAL, **WISH)
        )
    assert device.num_proposed > NUM_SHOWN
    assert {note["state"] for note in notes(chunks)} == {"verified"}


@contextmanager
def bringing_up_in_time(device: Device) -> Iterator[None]:
    """The verifier comes once the drafter has answered alone for a while, and stays until the block is over."""
    is_over = threading.Event()

    def bring_up() -> None:
        assert device.is_time.wait(HANG_S)
        with device.bring_up():
            is_over.wait(HANG_S)

    thread = threading.Thread(target=bring_up)
    thread.start()
    try:
        yield
    finally:
        device.is_time.set()
        is_over.set()
        thread.join()
