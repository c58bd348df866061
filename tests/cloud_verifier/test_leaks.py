"""What somebody sends shows nowhere else: not in logs at any level, not in answers, not in what objects print."""

import contextlib
import logging
import traceback
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cloud_verifier.settings import ServiceSettings
from cloud_verifier.tokens import TokenFile
from edge_runtime.links import WebSocketLink
from edge_runtime.request import GenerationRequest
from outrider.engines.base import Chunk
from outrider.errors import EngineError, OutriderError
from outrider.wire import Draft, Verified, encode, pack_ids
from tests.cloud_verifier.sockets import ToyService, answer, hear, last_word, say, toy_service
from tests.cloud_verifier.test_verifier import SAMPLED, open_message
from tests.edge_runtime.test_session import collect
from tests.toy import ToyEngine

N_VOCAB = 1 << 20
CANARY = [734_921, 912_377, 848_213]  # token ids that nothing else is likely to print
TEXT = "canary-ZGV2aWNl"
NAMES = [str(token_id) for token_id in CANARY] + [TEXT]


class FailingEngine(ToyEngine):
    """Fails as real ones do, with everything it knows in the text."""

    failure: type[Exception] | None = None

    def extend(self, chunks):
        if self.failure is not None:
            raise self.failure(f"the chunks {[chunk.token_ids for chunk in chunks]} failed")
        return super().extend(chunks)


def session(service: ToyService, secret: str, said: list[object]) -> None:
    with service.stream(secret) as stream, contextlib.suppress(ConnectionClosed):
        say(stream, open_message(CANARY, num_tokens=3))
        said.append(last_word(stream)[1])


def every_failing_path(service: ToyService, tokens: TokenFile, secret: str, engine: FailingEngine) -> list[object]:
    """What was answered on each."""
    bodies: list[object] = []
    wrong = secret[:-4] + "AAAA"
    with httpx.Client(base_url=service.url) as client:
        for headers in ({}, {"Authorization": f"Bearer {wrong}"}, {"Authorization": f"Bearer {secret}"}):
            for path in (f"/{TEXT}", f"/v1/models?prompt={TEXT}&token={secret}", f"/healthz/{TEXT}"):
                bodies.append(client.get(path, headers=headers).text)
            for kind in ("application/json", "text/plain"):
                for content in (f'{{"tokens": {CANARY}, "drafts": "{TEXT}"', f"[{TEXT}"):
                    answered = client.post(
                        "/v1/verify", content=content, headers={**headers, "Content-Type": kind, "Host": TEXT}
                    )
                    bodies.append(answered.text)
    head = f"POST /{TEXT} HTTP/1.1\r\nHost: {TEXT}\r\nAuthorization: Bearer {secret}\r\n"
    for rest in (
        f"Content-Length: {TEXT}\r\n\r\n",
        f"{TEXT}\r\n\r\n",
        f"x: {TEXT * 2000}\r\n\r\n",
        "\r\n",
        f"\0{TEXT}\r\n\r\n",
    ):
        with service.plain() as connection:
            bodies.append(answer(connection, (head + "Connection: close\r\n" + rest).encode()))
    for shown in ("", wrong):
        with pytest.raises(InvalidStatus) as refused, service.stream(shown):
            pass
        bodies.append(refused.value.response.body)
    prompt = open_message(CANARY)
    for data in (TEXT, TEXT.encode(), encode(prompt), encode(prompt)[:-3] + b"\x80", encode(prompt)[:40] + b"\x80"):
        with service.stream(secret) as stream:
            stream.send(data)
            bodies.append(last_word(stream)[1])
    for over in ({"vocabulary": "other"}, {"target": "other"}, {"limit": 1}, {"stop_ids": pack_ids([2**31])}):
        with service.stream(secret) as stream:
            say(stream, open_message(CANARY, **over))
            bodies.append(last_word(stream)[1])
    with service.stream(secret) as stream:
        say(stream, open_message(CANARY, patience_ms=-1))
        while not isinstance(hear(stream), Verified):
            pass
        say(stream, Draft(0, 4, pack_ids([*CANARY, 2**31])))
        bodies.append(last_word(stream)[1])
    engine.failure = EngineError  # its text is the engine's to word: this one is told to the session it failed
    with service.stream(secret) as stream:
        say(stream, open_message([1, 2]))
        bodies.append(last_word(stream)[1])
    engine.failure = None
    engine.poison = CANARY[-1]
    session(service, secret, bodies)
    with contextlib.suppress(OutriderError):
        collect(WebSocketLink(service.url, token=wrong), None, GenerationRequest(CANARY, 5, SAMPLED, (), "v"))
    with contextlib.suppress(OutriderError):
        collect(WebSocketLink(service.url, token=secret), None, GenerationRequest(CANARY, 5, SAMPLED, (), "v"))
    tokens.revoke("laptop")
    with pytest.raises(InvalidStatus) as refused, service.stream(secret):
        pass
    bodies.append(refused.value.response.body)
    return bodies


def test_nothing_sent_shows_in_logs_answers_or_representations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (
        "",
        "uvicorn",
        "uvicorn.error",
        "uvicorn.access",
        "websockets",
        "asyncio",
        "cloud_verifier",
        "outrider",
    ):
        caplog.set_level(logging.DEBUG, logger=name)
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.add("laptop")[1]
    last = tokens.add("phone")[1]
    engine = FailingEngine(n_vocab=N_VOCAB)
    with toy_service(ServiceSettings(tokens=tokens, requests_per_s=1e6), engine) as service:
        caplog.set_level(logging.DEBUG, logger="uvicorn.error")  # an operator who wants to see everything
        bodies = every_failing_path(service, tokens, secret, engine)
        assert len(bodies) > 40
        engine.failure = ZeroDivisionError  # a bug, its text full of tokens: the verifier's thread ends
        session(service, last, bodies)
        printed = [repr(thing) for thing in (service.verifier, service.loop, service, tokens, tokens.tokens())]
        printed += [repr(open_message(CANARY)), repr(Draft(0, 1, pack_ids(CANARY))), repr(Chunk(0, CANARY))]
    assert "the verifier's thread failed with ZeroDivisionError" in caplog.text  # logs are being read
    ours = "\n".join(
        record for record in caplog.text.splitlines() if "httpcore" not in record and "httpx" not in record
    )
    for name in (*NAMES, secret, last):
        assert name not in ours, name
        assert all(name not in str(body) for body in bodies), name
        assert all(name not in text for text in printed), name
    raw = pack_ids(CANARY)
    assert all(raw not in body for body in bodies if isinstance(body, bytes))
    assert all(repr(raw)[2:-1] not in text for text in [*printed, ours])


def test_tracebacks_show_no_token(tmp_path: Path) -> None:
    """The lookup's own errors, printed whole."""
    tokens = TokenFile(tmp_path / "tokens.json")
    secret = tokens.add("laptop")[1]
    tokens.path.write_text("{")
    try:
        tokens.tokens()
    except OutriderError:
        shown = traceback.format_exc()
    assert secret not in shown
