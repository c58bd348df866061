"""How much one may ask for: every bound told with its status, before more is read than it allows."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cloud_verifier.guard import Bucket, Guard, max_body_bytes, max_message_bytes
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.tokens import TokenFile
from outrider.errors import InvalidParameter
from outrider.wire import STREAM_PATH, SUBPROTOCOL, Draft, Fault, Opened, pack_ids
from tests.cloud_verifier.test_verifier import PROMPT, open_message, target_alone
from tests.cloud_verifier.toy_service import ToyService, answer, hear, last_word, say, toy_service
from tests.serving import UNHURRIED

MANY = {"requests_per_s": 1e6, "messages_per_s": 1e6}
JSON = "Content-Type: application/json\r\n"
UPGRADE = (
    f"GET {STREAM_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
)


@pytest.fixture(scope="module")
def service() -> Iterator[ToyService]:
    with toy_service() as service:
        yield service


def works(service: ToyService) -> None:
    """Another device is served as ever."""
    with service.stream() as stream:
        say(stream, open_message())
        assert last_word(stream)[0] == target_alone()


def pour(connection: socket.socket, head: str, block: bytes, most: int) -> tuple[int, bytes]:
    """Send `block` again and again until the other side wants no more; bytes sent, and what it said."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        connection.sendall(head.encode())
        while sent < most:
            sent += connection.send(block)
    return sent, answer(connection)


def test_a_body_declared_too_large_is_refused_unread(service: ToyService) -> None:
    with service.plain() as connection:
        head = f"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {10**9}\r\n\r\n"
        assert answer(connection, head.encode()).startswith(b"HTTP/1.1 413 ")
    works(service)


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_a_body_in_chunks_is_counted_as_it_comes(size: int) -> None:
    """Through the middleware itself: how much it takes from the server before it refuses."""
    cap = 10_000
    taken, said = 0, []

    async def receive() -> dict[str, object]:
        nonlocal taken
        taken += size
        return {"type": "http.request", "body": b"x" * size, "more_body": True}

    async def send(event: dict[str, object]) -> None:
        said.append(event)

    async def app(*_: object) -> None:
        raise AssertionError("a door was reached")

    scope = {"type": "http", "path": "/", "headers": [], "state": {"credential": "c"}}
    asyncio.run(Guard(app, UNHURRIED, cap)(scope, receive, send))  # type: ignore[arg-type]
    assert said[0]["status"] == 413
    assert cap < taken <= cap + size


def test_an_endless_body_in_chunks_is_413_and_the_connection_ends(service: ToyService) -> None:
    block = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    head = f"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
    with service.plain() as connection:
        sent, got = pour(connection, head, block, 2**30)
    assert sent < 32 * 2**20  # what fits into socket buffers; the body itself is read to its cap
    assert got == b"" or got.startswith(b"HTTP/1.1 413 ")
    works(service)


def test_deep_json_is_no_crash(service: ToyService) -> None:
    body = b"[" * (max_body_bytes(512) - 10)
    response = httpx.post(f"{service.url}/v1/verify", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    works(service)


def test_a_body_up_to_the_cap_reaches_its_door(service: ToyService) -> None:
    body = b" " * max_body_bytes(512)
    response = httpx.post(f"{service.url}/nowhere", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 404


@pytest.mark.parametrize(
    "more",
    [
        "x: " + "y" * 20_000 + "\r\n",
        "".join(f"x{n}: y\r\n" for n in range(3000)),
        "x" * 20_000 + ": y\r\n",
    ],
    ids=["long value", "many", "long name"],
)
@pytest.mark.parametrize("head", ["GET /healthz HTTP/1.1\r\nHost: localhost\r\n", UPGRADE], ids=["http", "websocket"])
def test_a_head_too_large_is_refused(service: ToyService, head: str, more: str) -> None:
    with service.plain() as connection:
        assert answer(connection, (head + more + "\r\n").encode()).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    with service.plain() as connection:
        sent, _ = pour(connection, head, b"x: " + b"y" * 100 + b"\r\n", 2**26)
        assert sent < 2**26
    works(service)


def test_malformed_upgrades_leave_nothing_open() -> None:
    """Heads that are well-formed HTTP and no WebSocket handshake: they would use up the connections for ever."""
    with toy_service(ServiceSettings(max_connections=8, **MANY)) as service:
        for more in (
            "".join(f"x{n}: y\r\n" for n in range(200)),
            "x: " + "y" * 9000 + "\r\n",
            "Content-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Sec-WebSocket-Key: other\r\n",
        ):
            for _ in range(10):
                with service.plain() as connection:
                    assert not answer(connection, (UPGRADE + more + "\r\n").encode()).startswith(b"HTTP/1.1 101")
        works(service)


def test_a_message_too_large_ends_the_socket_unread(service: ToyService) -> None:
    assert max_message_bytes(512) < 100_000
    with service.stream() as stream:
        with contextlib.suppress(ConnectionClosed):
            stream.send(b"x" * (max_message_bytes(512) + 1))
        with pytest.raises(ConnectionClosed):
            stream.recv(timeout=20)
    with service.plain() as connection:  # 2^62 bytes declared
        connection.sendall((UPGRADE + "\r\n").encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        got = answer(connection, b"\x82\xff" + (2**62).to_bytes(8, "big") + b"mask" + b"x" * 1000)
        assert got[:2] == b"\x88\x2d" or got[2:4] == (1009).to_bytes(2, "big")
    works(service)


def test_a_prompt_over_the_context_still_gets_its_sentence(service: ToyService) -> None:
    with service.stream() as stream:
        say(stream, open_message([1] * 600))
        said = hear(stream)
        assert isinstance(said, Fault)
        assert said.code == "context_exceeded"


def test_more_drafts_than_a_message_may_hold(service: ToyService) -> None:
    with service.stream() as stream:
        say(stream, open_message(patience_ms=-1))
        assert isinstance(hear(stream), Opened)
        say(stream, Draft(0, len(PROMPT), pack_ids([1] * 257)))
        said = last_word(stream)[1]
        assert isinstance(said, Fault)
        assert said.code == "protocol"


FLOODS: dict[str, Callable[[], bytes]] = {
    "pings": lambda: b"\x89\x80mask" * 1000,
    "fragments": lambda: b"\x02\x80mask" + b"\x00\x80mask" * 1000,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_of_frames_that_are_no_messages_end_the_socket(service: ToyService, flood: str) -> None:
    with service.plain() as connection:
        connection.sendall((UPGRADE + "\r\n").encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        assert (1008).to_bytes(2, "big") in answer(connection, FLOODS[flood]())
    works(service)


def test_messages_too_many_are_a_fault_with_a_time() -> None:
    with toy_service(ServiceSettings(messages_per_s=5, requests_per_s=1e6)) as service:
        with service.stream() as stream:
            say(stream, open_message(patience_ms=-1))
            with contextlib.suppress(ConnectionClosed):
                for _ in range(50):
                    say(stream, Draft(0, 2**20, b""))
            said = last_word(stream)[1]
        assert isinstance(said, Fault)
        assert (said.code, said.may_retry) == ("too_many", True)
        assert said.retry_after_ms >= 1000
        with service.stream() as stream:
            say(stream, open_message())
            assert last_word(stream)[0] == target_alone()


def test_requests_too_many_are_429_with_a_time_and_for_that_credential_alone(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    greedy, other = tokens.add("greedy")[1], tokens.add("other")[1]
    with toy_service(ServiceSettings(tokens=tokens, requests_per_s=0.1)) as service:
        statuses = []
        with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {greedy}"}) as client:
            for _ in range(5):
                response = client.get("/nowhere")
                statuses.append(response.status_code)
        assert statuses == [404] + [429] * 4
        assert 1 <= int(response.headers["retry-after"]) <= 10
        assert response.json()["error"]["code"] == "too_many"
        with pytest.raises(InvalidStatus) as refused, service.stream(greedy):
            pass
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        with service.stream(other) as stream:
            say(stream, open_message())
            assert last_word(stream)[0] == target_alone()


def test_connections_at_once_of_one_credential_are_counted_and_given_back() -> None:
    with toy_service(ServiceSettings(max_connections_each=3, **MANY)) as service:
        with contextlib.ExitStack() as held:
            for _ in range(3):
                held.enter_context(service.stream())
            with pytest.raises(InvalidStatus) as refused, service.stream():
                pass
            assert refused.value.response.status_code == 429
        for _ in range(10):  # as many as it takes until the server has noticed that they left
            with contextlib.suppress(InvalidStatus):
                works(service)
                return
        raise AssertionError("connections were not given back")


def test_connections_in_all_are_counted_also_when_they_say_nothing() -> None:
    with toy_service(ServiceSettings(max_connections=20, **MANY)) as service, contextlib.ExitStack() as held:
        silent = [held.enter_context(service.plain()) for _ in range(20)]
        for _ in range(3):
            with service.plain() as connection:
                assert answer(connection).startswith(b"HTTP/1.1 503 ")
        for connection in silent:
            connection.close()
        while True:
            with service.plain() as connection:
                got = answer(connection, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if got.startswith(b"HTTP/1.1 200 "):
                break


def test_slow_heads_are_closed_and_hold_nobody_up() -> None:
    with toy_service(ServiceSettings(header_s=0.5, **MANY)) as service, contextlib.ExitStack() as held:
        slow = [held.enter_context(service.plain()) for _ in range(200)]
        for number, connection in enumerate(slow):
            connection.sendall([b"", b"GET /healthz HTTP/1.1\r\n", UPGRADE.encode()][number % 3])
        works(service)
        for connection in slow:
            assert answer(connection) == b""
        again = held.enter_context(service.plain())  # a second head on a connection that has had an answer
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert again.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1" not in answer(again, b"GET /hea")
        works(service)


def test_a_socket_that_opens_no_session_is_closed() -> None:
    with toy_service(ServiceSettings(header_s=0.3, **MANY)) as service, service.stream() as stream:
        said = hear(stream)
        assert isinstance(said, Fault)
        assert said.code == "too_slow"


def test_a_slow_body_is_408() -> None:
    with toy_service(ServiceSettings(body_s=0.3, **MANY)) as service, service.plain() as connection:
        head = f"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 10\r\n\r\n123"
        assert answer(connection, head.encode()).startswith(b"HTTP/1.1 408 ")


def test_hundreds_of_rude_requests_leave_no_memory_behind(service: ToyService) -> None:
    process = psutil.Process()
    chunked = f"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n".encode()
    big_chunk = b"80000\r\n" + b"x" * 0x80000 + b"\r\n"
    rude = [
        chunked + big_chunk,
        b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 2**19,
        b"\x82\xff" + (2**40).to_bytes(8, "big") + b"mask" + b"x" * 2**16,
        b"\x16\x03\x01" + b"\0" * 2**16,
    ]

    def rounds(count: int) -> None:
        for number in range(count):
            said = rude[number % len(rude)]
            with service.plain() as connection:
                if said.startswith(b"\x82"):
                    connection.sendall((UPGRADE + "\r\n").encode())
                    assert connection.recv(65536).startswith(b"HTTP/1.1 101")
                answer(connection, said)

    rounds(40)
    before = process.memory_info().rss
    rounds(300)
    assert process.memory_info().rss - before < 50 * 2**20
    works(service)


def test_a_bucket_lets_its_rate_through_and_twice_that_after_a_pause() -> None:
    now_s = 0.0
    bucket = Bucket(10, clock=lambda: now_s)
    assert [bucket.take() == 0 for _ in range(21)] == [True] * 20 + [False]
    assert bucket.take() == pytest.approx(0.1)
    now_s = 0.5
    assert [bucket.take() == 0 for _ in range(6)] == [True] * 5 + [False]
    now_s = 1000.0
    assert [bucket.take() == 0 for _ in range(21)] == [True] * 20 + [False]


@pytest.mark.parametrize("name", ["max_connections", "requests_per_s", "messages_per_s", "header_s", "body_s"])
def test_bounds_are_numbers_above_0(name: str) -> None:
    for value in (0, -1, float("nan")):
        with pytest.raises(InvalidParameter, match=name):
            ServiceSettings(**{name: value})
