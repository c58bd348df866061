"""What the endpoint refuses, in OpenAI's shape: requests that cannot be, strangers, pages, and who has left."""

import asyncio
import contextlib
import http.client
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from edge_runtime.api import ApiKey, ApiSettings
from edge_runtime.links import InProcessLink
from edge_runtime.runtime import Runtime
from outrider.errors import InvalidParameter
from outrider.manifest import load_folder
from outrider.tokens import TextCodec
from tests.cloud_verifier.test_rest import GatedEngine, until
from tests.edge_runtime.api.tiny import HELLO, UNHURRIED, client, endpoint
from tests.lazy import openai

KEY = "a-key-of-this-device"
TOOL = {"type": "function", "function": {"name": "f"}}
BAD_CHATS: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "gpt-9"}, 404, "model_not_found", None),
    ({"model": "hybrid"}, 404, "model_not_found", None),
    ({"model": "cloud"}, 404, "model_not_found", None),
    ({"model": None}, 400, "invalid_parameter", "model"),
    ({"unheard_of": 1}, 400, "invalid_parameter", None),
    ({"functions": []}, 400, "invalid_parameter", None),
    ({"messages": []}, 400, "invalid_parameter", "messages"),
    ({"messages": "hello"}, 400, "invalid_parameter", "messages"),
    ({"messages": [{"role": "king", "content": "hello"}]}, 400, "invalid_parameter", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, 400, "invalid_parameter", "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_parameter", None),
    ({"messages": [{"role": "user", "content": "hello " * 2000}]}, 400, "context_length_exceeded", None),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "protocol", None),
    ({"temperature": 2.5}, 400, "invalid_parameter", "temperature"),
    ({"temperature": "hot"}, 400, "invalid_parameter", "temperature"),
    ({"top_p": 0}, 400, "invalid_parameter", "top_p"),
    ({"n": 0}, 400, "invalid_parameter", "n"),
    ({"n": 129}, 400, "invalid_parameter", "n"),
    ({"n": True}, 400, "invalid_parameter", "n"),
    ({"seed": 2**63}, 400, "invalid_parameter", "seed"),
    ({"max_tokens": 0}, 400, "invalid_parameter", "max_tokens"),
    ({"max_tokens": 2, "max_completion_tokens": 2}, 400, "invalid_parameter", "max_tokens"),
    ({"stop": ["x" * 300]}, 400, "invalid_parameter", None),
    ({"stop": ["x"] * 17}, 400, "invalid_parameter", "stop"),
    ({"logit_bias": {"x": 1}}, 400, "invalid_parameter", None),
    ({"logit_bias": {"5": 101}}, 400, "invalid_parameter", None),
    ({"logit_bias": {"99999": 1}}, 400, "invalid_token", None),
    ({"top_logprobs": 2}, 400, "invalid_parameter", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_parameter", "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, 400, "invalid_parameter", "stream_options"),
    ({"response_format": {"type": "json_schema"}}, 400, "invalid_parameter", "response_format.json_schema.schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}},
        400,
        "invalid_parameter",
        None,
    ),
    ({"tools": [TOOL], "response_format": {"type": "json_object"}}, 400, "invalid_parameter", None),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        400,
        "invalid_parameter",
        "tool_choice",
    ),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, 400, "invalid_parameter", None),
    ({"modalities": ["audio"]}, 400, "invalid_parameter", None),
    ({"x_outrider": {"strict": True, "provisional": True}}, 400, "invalid_parameter", "x_outrider"),
    ({"x_outrider": {"unheard_of": 1}}, 400, "invalid_parameter", "x_outrider"),
]
BAD_COMPLETIONS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "empty_prompt"),
    ({"prompt": []}, "invalid_parameter"),
    ({"prompt": [1, "hello"]}, "invalid_parameter"),
    ({"prompt": [[]]}, "empty_prompt"),
    ({"prompt": [-1]}, "invalid_parameter"),
    ({"prompt": [99999]}, "invalid_token"),
    ({"prompt": ["hello"] * 129}, "invalid_parameter"),
    ({"prompt": ["hello"] * 65, "n": 2}, "invalid_parameter"),
    ({"prompt": ["hello"], "suffix": "he"}, "invalid_parameter"),
    ({"echo": True}, "invalid_parameter"),
    ({"best_of": 3, "n": 2}, "invalid_parameter"),
    ({"best_of": 2, "stream": True}, "invalid_parameter"),
    ({"best_of": 2, "temperature": 0}, "invalid_parameter"),
    ({"best_of": 17}, "invalid_parameter"),
    ({"logprobs": 21}, "invalid_parameter"),
    ({"max_tokens": 0}, "invalid_parameter"),
]


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    with httpx.Client() as plain:
        yield plain


def check_shape(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert answer.headers["x-should-retry"] in ("true", "false")
    return error


@pytest.mark.parametrize(
    ("over", "status", "code", "param", "stream"),
    [
        pytest.param(*case, stream, id=f"{str(case[0])[:60]}-{'stream' if stream else 'whole'}")
        for case in BAD_CHATS
        for stream in (False, True)
        if not (stream and "stream_options" in case[0])  # with a stream it can be
    ],
)
def test_a_chat_that_cannot_be(
    plain: httpx.Client, url: str, over: dict[str, Any], status: int, code: str, param: str | None, stream: bool
) -> None:
    body = {"model": "auto", "messages": HELLO, "stream": stream, **over}
    content = json.dumps(body).encode()  # with escapes: half a character can be sent so
    answer = plain.post(f"{url}/chat/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    error = check_shape(answer)
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert error["param"] == param or param is None
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("over", "code"), BAD_COMPLETIONS, ids=[str(case[0])[:60] for case in BAD_COMPLETIONS])
def test_a_completion_that_cannot_be(plain: httpx.Client, url: str, over: dict[str, Any], code: str) -> None:
    answer = plain.post(f"{url}/completions", json={"model": "auto", "prompt": "hello", **over})
    assert answer.status_code == 400
    assert check_shape(answer)["code"] == code


def test_a_model_that_knows_neither_tools_nor_gaps(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with toy(home, "plain") as (url, _, _):
        for path, body in (
            ("chat/completions", {"messages": HELLO, "tools": [TOOL]}),
            ("completions", {"prompt": "he", "suffix": "llo"}),
        ):
            answer = httpx.post(f"{url}/{path}", json={"model": "auto", **body})
            assert answer.status_code == 400
            assert "leave" in check_shape(answer)["message"]
        with client(url) as ai:
            assert ai.chat.completions.create(model="auto", messages=HELLO, tools=[TOOL], tool_choice="none")  # type: ignore[list-item]


def test_the_client_raises_its_own_errors_and_does_not_insist(url: str) -> None:
    requests: list[str] = []
    with client(url, max_retries=2) as ai:
        ai._client.event_hooks["request"].append(lambda request: requests.append(request.url.path))
        with pytest.raises(openai.NotFoundError) as missing:
            ai.chat.completions.create(model="gpt-9", messages=HELLO)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as bad:
            ai.chat.completions.create(model="auto", messages=HELLO, temperature=3)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.InternalServerError) as none:
            ai.embeddings.create(model="auto", input="hello")
        assert (none.value.status_code, none.value.code) == (501, "not_implemented")
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("method", "path", "content", "content_type", "status"),
    [
        ("POST", "/chat/completions", b"{}", "text/plain", 415),
        ("POST", "/chat/completions", b"{}", "", 415),
        ("POST", "/chat/completions", b"\x80", "application/msgpack", 415),
        ("POST", "/chat/completions", b"{", "application/json", 400),
        ("POST", "/chat/completions", b"[" * 50_000, "application/json", 400),
        ("POST", "/completions", b'"\xff"', "application/json", 400),
        ("POST", "/embeddings", b"{}", "application/json", 501),
        ("GET", "/chat/completions", b"", "", 405),
        ("GET", "/models/nothing", b"", "", 404),
        ("GET", "/nothing", b"", "", 404),
        ("POST", "/completions", b" " * (5 << 20), "application/json", 413),
    ],
)
def test_what_is_no_request(
    plain: httpx.Client, url: str, method: str, path: str, content: bytes, content_type: str, status: int
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = plain.request(method, url + path, content=content, headers=headers)
    assert answer.status_code == status
    check_shape(answer)


def asked_as(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    with contextlib.closing(http.client.HTTPConnection(url.split("/")[2])) as connection:
        connection.putrequest("GET", "/v1/models", skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        return answer


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:80"])
def test_names_of_this_device_are_let_in(url: str, host: str) -> None:
    assert asked_as(url, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Host": "localhost", "Origin": "http://evil.example"},
        {"Host": "localhost", "Origin": "null"},
    ],
)
def test_pages_of_others_are_not(url: str, headers: dict[str, str]) -> None:
    answer = asked_as(url, headers)
    assert answer.status == 403
    assert answer.getheader("access-control-allow-origin") is None


def test_with_a_key_only_who_shows_it_is_let_in(pair: Runtime) -> None:
    with endpoint(pair, settings=ApiSettings(tokens=ApiKey(KEY))) as url:
        with client(url, api_key=KEY) as ai:
            assert ai.models.list().data
        for key in ("another-key-of-nobody", KEY + "x"):
            with client(url, api_key=key) as ai, pytest.raises(openai.AuthenticationError) as refused:
                ai.models.list()
            assert refused.value.code == "invalid_api_key"
        assert httpx.get(f"{url}/models").status_code == 401
        assert httpx.get(url.replace("/v1", "/docs"), headers={"authorization": f"Bearer {KEY}"}).status_code == 404


@pytest.mark.parametrize("key", ["", "short", "a key with spaces in it", "sixteen-letters-é"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(InvalidParameter):
        ApiKey(key)


@contextlib.contextmanager
def toy(
    home: Any, name: str = "tiny", settings: ApiSettings = UNHURRIED
) -> Iterator[tuple[str, VerifierLoop, GatedEngine]]:
    """The endpoint over an engine that waits in every pass until it may go on."""
    folder = load_folder(home / name)
    engine = GatedEngine(n_vocab=folder.manifest.n_vocab)
    loop = VerifierLoop(Verifier(engine, target="t", vocabulary=folder.manifest.tokenizer_fingerprint))
    engine.gate.set()
    try:
        with (
            Runtime(TextCodec(folder), folder, None, lambda: InProcessLink(loop)) as runtime,
            endpoint(runtime, settings=settings) as url,
        ):
            yield url, loop, engine
    finally:
        engine.gate.set()
        loop.close()
        loop.verifier.check_integrity()


@pytest.mark.parametrize("stream", [False, True])
def test_who_times_out_ends_the_generation(home: Any, stream: bool) -> None:
    with toy(home) as (url, loop, engine):
        engine.gate.clear()
        with client(url, timeout=0.3) as ai, pytest.raises(openai.APITimeoutError):
            ai.chat.completions.create(model="auto", messages=HELLO, stream=stream, max_tokens=100)
        assert engine.is_in_pass.is_set()
        assert loop.num_connections == 1
        engine.gate.set()
        until(lambda: loop.num_connections == 0)
        with client(url) as ai:
            assert ai.chat.completions.create(model="auto", messages=HELLO, max_tokens=3).choices


def test_who_leaves_a_stream_ends_the_generation(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with toy(home) as (url, loop, engine), client(url) as ai:
        extend, num_passes = engine.extend, itertools.count(1)

        def extend_and_wait(chunks: Any) -> Any:
            """Something is said, and what is to be left is not over before that."""
            logits = extend(chunks)
            if next(num_passes) == 20:
                engine.gate.clear()
            return logits

        with monkeypatch.context() as patch:
            patch.setattr(engine, "extend", extend_and_wait)
            stream = ai.chat.completions.create(
                model="auto", messages=HELLO, stream=True, logit_bias={"0": -100, "2": -100}
            )
            next(iter(stream))
            assert loop.num_connections == 1
            stream.close()
            engine.gate.set()
        until(lambda: loop.num_connections == 0)


def test_an_engine_that_fails_in_the_middle_is_an_error_of_the_stream(home: Any) -> None:
    with toy(home) as (url, _, engine), client(url) as ai:
        wish: Any = {"model": "auto", "messages": HELLO, "max_tokens": 100, "seed": 1, "logit_bias": {"0": -100}}
        told = ai.chat.completions.create(logprobs=True, **wish).choices[0].logprobs
        assert told is not None
        poison = bytes((told.content or [])[5].bytes or [])
        codec = TextCodec(load_folder(home / "tiny"))
        engine.poison = next(number for number in range(engine.n_vocab) if codec.bytes_of(number) == poison)
        stream = ai.chat.completions.create(stream=True, **wish)
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError) as failed:
            list(stream)
        assert failed.value.code == "bad_logits"
        with pytest.raises(openai.InternalServerError) as whole:
            ai.chat.completions.create(**wish)
        assert whole.value.code == "bad_logits"


def test_more_at_once_than_may_be_is_told_to_come_again(home: Any) -> None:
    with toy(home, settings=ApiSettings(max_connections_each=1)) as (url, _, engine), client(url) as ai:
        engine.gate.clear()
        thread = threading.Thread(target=lambda: ai.chat.completions.create(model="auto", messages=HELLO, max_tokens=2))
        thread.start()
        assert engine.is_in_pass.wait(20)
        with pytest.raises(openai.RateLimitError) as refused:
            ai.chat.completions.create(model="auto", messages=HELLO, max_tokens=2)
        assert refused.value.response.headers["x-should-retry"] == "true"
        assert refused.value.response.headers["retry-after"]
        engine.gate.set()
        thread.join()


def test_a_server_that_stops_tells_who_still_waits_to_come_again(home: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A stream by its last event, a whole answer by its status; nothing is left running."""
    errors: list[openai.APIError] = []
    wish: Any = {"model": "auto", "messages": HELLO, "logit_bias": {"0": -100, "2": -100}}

    def ask(ai: openai.OpenAI) -> None:
        with pytest.raises(openai.InternalServerError) as refused:
            ai.chat.completions.create(**wish)
        errors.append(refused.value)

    with contextlib.ExitStack() as stack:
        with toy(home, settings=ApiSettings(grace_s=0.01)) as (url, loop, engine):
            ai = stack.enter_context(client(url))
            stream = ai.chat.completions.create(stream=True, **wish)
            next(stream)
            engine.gate.clear()
            thread = threading.Thread(target=ask, args=(ai,))
            thread.start()
            until(lambda: loop.num_connections + loop.num_waiting >= 2)
        thread.join()
        with pytest.raises(openai.APIError) as ended:
            list(stream)
    assert ended.value.code == "moved"
    assert [(error.status_code, error.code) for error in errors] == [(503, "moved")]  # type: ignore[attr-defined]
    assert "Traceback" not in caplog.text
    assert "Cancel" not in caplog.text


def test_no_verifier_is_an_error_that_may_be_tried_again(home: Any) -> None:
    folder = load_folder(home / "tiny")
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        runtime = Runtime.remote(f"http://127.0.0.1:{port}", "tiny", "none")
    assert folder.manifest.fingerprint
    with runtime, endpoint(runtime, is_remote=True) as url, client(url) as ai:
        assert [model.id for model in ai.models.list()] == ["auto", "hybrid", "cloud"]
        with pytest.raises(openai.InternalServerError) as lost:
            ai.chat.completions.create(model="auto", messages=HELLO)
        assert (lost.value.status_code, lost.value.code) == (503, "link_lost")
        assert lost.value.response.headers["x-should-retry"] == "true"
        with pytest.raises(openai.NotFoundError, match="drafts"):
            ai.chat.completions.create(model="local", messages=HELLO)


def test_asyncio_has_no_complaints(url: str) -> None:
    """Streams left at their first word leave no task and no generator behind."""

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as ai:
            for _ in range(5):
                stream = await ai.chat.completions.create(model="auto", messages=HELLO, stream=True)
                async for _ in stream:
                    break
                await stream.close()

    asyncio.run(main())
