"""Who is let in: tokens, hosts, origins, types, certificates; over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import InvalidStatus

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.security import OPEN_PATHS, credential_of
from cloud_verifier.server import tls_context
from cloud_verifier.service import create_app
from cloud_verifier.settings import ServiceSettings
from cloud_verifier.tokens import TokenFile
from cloud_verifier.verifier import Verifier
from edge_runtime.links import WebSocketLink
from edge_runtime.request import GenerationRequest
from outrider.errors import InvalidParameter, LinkLost, NotAVerifier, Unauthorized
from outrider.wire import STREAM_PATH, SUBPROTOCOL, Cancel, Draft, Fault, Opened, Up, Verified
from tests.cloud_verifier.sockets import ToyService, answer, hear, last_word, say, toy_service
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, open_message, target_alone
from tests.edge_runtime.test_session import collect
from tests.lazy import trustme
from tests.toy import ToyEngine

REQUEST = GenerationRequest(PROMPT, 60, SAMPLED, (), "v")
ODD_CREDENTIALS = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer wrong",
    b"Basic TOKEN",
    b"TOKEN",
    b"Bearer TOKEN TOKEN",
    b"Bearer \xff\xfe\x80",
    "Bearer 密".encode(),
    b"Bearer " + b"x" * 8000,
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    return TokenFile(tmp_path_factory.mktemp("operator") / "tokens.json")


@pytest.fixture(scope="module")
def secret(tokens: TokenFile) -> str:
    return tokens.add("laptop")[1]


@pytest.fixture(scope="module")
def service(tokens: TokenFile, secret: str) -> Iterator[ToyService]:
    with toy_service(ServiceSettings(tokens=tokens)) as service:
        yield service


@pytest.fixture(scope="module")
def anonymous() -> Iterator[ToyService]:
    with toy_service() as service:
        yield service


def doors() -> list[tuple[str, str]]:
    """(method, path) of everything the application serves; a kind of route not known here fails the test."""
    loop = VerifierLoop(Verifier(ToyEngine(), target="t", vocabulary="v"))
    try:
        found: list[tuple[str, str]] = []
        for route in create_app(loop).routes:
            if isinstance(route, WebSocketRoute):
                found.append(("WEBSOCKET", route.path))
            else:
                assert isinstance(route, Route | APIRoute), route
                found += [(method, route.path) for method in sorted(route.methods or ())]
        return found
    finally:
        loop.close()


def test_every_door_is_closed_to_who_shows_no_token(service: ToyService, secret: str) -> None:
    found = doors()
    assert ("WEBSOCKET", STREAM_PATH) in found
    with httpx.Client(base_url=service.url) as client:
        for method, path in [*found, ("GET", "/"), ("GET", "/nowhere"), ("OPTIONS", STREAM_PATH), ("GET", STREAM_PATH)]:
            if method == "WEBSOCKET":
                with pytest.raises(InvalidStatus) as refused, service.stream():
                    pass
                assert refused.value.response.status_code == 401
                continue
            without = client.request(method, path)
            if path in OPEN_PATHS:
                assert without.status_code == 200, path
                continue
            assert without.status_code == 401, (method, path)
            assert without.headers["www-authenticate"] == "Bearer"
            assert without.json()["error"]["code"] == "unauthorized"
            shown = client.request(method, path, headers={"Authorization": f"Bearer {secret}"})
            assert shown.status_code != 401, (method, path)
    with service.stream(secret) as stream:
        say(stream, open_message())
        assert last_word(stream)[0] == target_alone()


def test_only_health_is_open() -> None:
    assert {"/healthz"} == OPEN_PATHS


def test_no_pages_of_documentation_where_tokens_are_wanted(service: ToyService, secret: str) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        response = httpx.get(service.url + path, headers={"Authorization": f"Bearer {secret}"})
        assert response.status_code == 404


@pytest.mark.parametrize("credential", ODD_CREDENTIALS, ids=range(len(ODD_CREDENTIALS)))
def test_odd_credentials_are_401(service: ToyService, secret: str, credential: bytes) -> None:
    value = credential.replace(b"TOKEN", secret.encode())
    head = b"Host: x\r\nAuthorization: " + value + b"\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    for request in (
        b"GET /v1/models HTTP/1.1\r\n" + head + b"\r\n",
        b"GET " + STREAM_PATH.encode() + b" HTTP/1.1\r\n" + head + upgrade + b"\r\n",
    ):
        with service.plain() as connection:
            assert answer(connection, request).startswith(b"HTTP/1.1 401 ")


def test_two_credentials_in_one_request_are_none(service: ToyService, secret: str) -> None:
    line = f"Authorization: Bearer {secret}\r\n"
    with service.plain() as connection:
        got = answer(connection, f"GET /v1/models HTTP/1.1\r\nHost: x\r\n{line}{line}\r\n".encode())
    assert got.startswith(b"HTTP/1.1 401 ")


def test_a_token_in_the_address_is_no_token(service: ToyService, secret: str) -> None:
    assert httpx.get(f"{service.url}/v1/models", params={"token": secret}).status_code == 401


def test_a_door_without_the_gate_lets_nobody_in() -> None:
    with pytest.raises(Unauthorized):
        asyncio.run(credential_of(HTTPConnection({"type": "http", "headers": []})))


def test_the_device_gets_in_with_its_token_and_is_told_without(service: ToyService, secret: str) -> None:
    tokens, _ = collect(WebSocketLink(service.url, token=secret), None, REQUEST)
    assert [token.token_id for token in tokens] == target_alone()
    for wrong in ("", "wrong"):
        with pytest.raises(Unauthorized, match="--token-file"):
            collect(WebSocketLink(service.url, token=wrong), None, REQUEST)


def test_credentials_and_not_names_reach_the_verifier(service: ToyService, tokens: TokenFile, secret: str) -> None:
    token = tokens.tokens()[0]
    with service.stream(secret) as stream:
        say(stream, open_message(patience_ms=-1))
        opened = hear(stream)
        assert isinstance(opened, Opened)
        assert service.verifier.credential_of(opened.session) == token.id
        say(stream, Cancel())


def test_sessions_have_names_that_nobody_can_use(service: ToyService, secret: str) -> None:
    fields = {name for message in Up.__args__ for name in message.__struct_fields__}
    assert not any("session" in name for name in fields)
    assert not any("{" in path for _, path in doors())
    names = {service.verifier.open(open_message(), str(number % 40)).session for number in range(200)}
    for name in names:
        service.verifier.close(name)
    assert len(names) == 200
    assert min(map(len, names)) >= 43  # 256 bits


def test_a_revoked_token_ends_its_sessions_and_no_other(service: ToyService, tokens: TokenFile) -> None:
    secret, other = tokens.add("stolen")[1], tokens.add("phone")[1]
    with service.stream(secret) as mine, service.stream(other) as kept, service.stream(secret) as unopened:
        for stream in (mine, kept):
            say(stream, open_message(patience_ms=-1))
            assert isinstance(hear(stream), Opened)
            assert isinstance(hear(stream), Verified)
        tokens.revoke("stolen")
        with pytest.raises(InvalidStatus) as refused, service.stream(secret):
            pass
        assert refused.value.response.status_code == 401
        say(unopened, open_message())
        for stream in (mine, unopened):
            said = last_word(stream)[1]
            assert isinstance(said, Fault)
            assert (said.code, said.may_retry) == ("unauthorized", False)
        say(kept, Draft(0, len(PROMPT) + 1, b""))
        assert isinstance(hear(kept), Verified)
    with service.stream(tokens.add("tablet")[1]) as added:
        say(added, open_message())
        assert last_word(added)[0] == target_alone()


OWN_HOSTS = ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8700", "[::1]", "[::1]:8700", "127.0.0.2:1"]
OTHER_HOSTS = ["evil.com", "127.0.0.1.evil.com", "", "localhost.evil.com", "evil.com:8700", "localhost:x", "[::1"]
OTHER_HOSTS += [
    "::1",
    "127.0.0.1, evil.com",
    "localhost@evil.com",
    "0.0.0.0",
    "[::2]",
    "127.0.0.1:8700:1",
    "1270.0.0.1",
    "é",
]


def request_as(service: ToyService, host: str, *, is_stream: bool, more: str = "") -> int:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
    path, more = (STREAM_PATH, upgrade + more) if is_stream else ("/healthz", "Connection: close\r\n" + more)
    with service.plain() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
        first = connection.recv(65536)
        assert b"access-control" not in first.lower()
        return int(first.split()[1])


@pytest.mark.parametrize("is_stream", [False, True], ids=["http", "websocket"])
def test_without_tokens_only_this_machine_s_names_are_answered(anonymous: ToyService, is_stream: bool) -> None:
    for host in OWN_HOSTS:
        assert request_as(anonymous, host, is_stream=is_stream) == (101 if is_stream else 200), host
    for host in OTHER_HOSTS:
        assert request_as(anonymous, host, is_stream=is_stream) in (400, 403), host
    assert anonymous.engine.num_passes == 0


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://localhost:8700", "file://"])
def test_web_pages_are_refused(anonymous: ToyService, origin: str) -> None:
    for is_stream in (False, True):
        assert request_as(anonymous, "localhost", is_stream=is_stream, more=f"Origin: {origin}\r\n") == 403
    with pytest.raises(InvalidStatus) as refused, anonymous.stream(origin=origin):
        pass
    assert refused.value.response.status_code == 403
    with anonymous.stream() as stream:  # the same without an origin
        say(stream, open_message())
        assert last_word(stream)[0] == target_alone()


def test_a_public_service_without_tokens_answers_to_any_name_but_to_no_page() -> None:
    with toy_service(ServiceSettings(is_public=True)) as service:
        assert request_as(service, "verifier.example", is_stream=False) == 200
        assert request_as(service, "verifier.example", is_stream=False, more="Origin: http://evil.com\r\n") == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_a_body_of_a_type_that_a_page_may_send_is_415(anonymous: ToyService, kind: str) -> None:
    response = httpx.post(f"{anonymous.url}/healthz-not", content=b"{}", headers={"Content-Type": kind})
    assert response.status_code == 415
    assert response.json()["error"]["code"] == "wrong_content_type"
    for served in ("application/json", "application/json; charset=utf-8", "application/msgpack"):
        response = httpx.post(f"{anonymous.url}/healthz-not", content=b"{}", headers={"Content-Type": served})
        assert response.status_code == 404


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificates(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "client", "stranger")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    served = authority.issue_cert("127.0.0.1", "localhost")
    served.cert_chain_pems[0].write_to_path(str(files["cert"]))
    served.private_key_pem.write_to_path(str(files["key"]))
    authority.issue_cert("device").private_key_and_cert_chain_pem.write_to_path(str(files["client"]))
    trustme.CA().issue_cert("device").private_key_and_cert_chain_pem.write_to_path(str(files["stranger"]))
    return files


def device(certificates: dict[str, Path], certificate: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates["ca"])
    if certificate:
        context.load_cert_chain(certificates[certificate])
    return context


def test_tokens_over_tls(certificates: dict[str, Path], tokens: TokenFile, secret: str) -> None:
    settings = ServiceSettings(tokens=tokens, tls=tls_context(certificates["cert"], certificates["key"]))
    with toy_service(settings) as service:
        assert service.url.startswith("https://")
        got, _ = collect(WebSocketLink(service.url, token=secret, tls=device(certificates)), None, REQUEST)
        assert [token.token_id for token in got] == target_alone()
        with pytest.raises(NotAVerifier, match=r"not trusted .*--ca-file"):
            asyncio.run(WebSocketLink(service.url, token=secret).open())
        with pytest.raises(Unauthorized):
            collect(WebSocketLink(service.url, tls=device(certificates)), None, REQUEST)


def test_an_address_of_the_wrong_scheme_is_told_the_right_one(certificates: dict[str, Path]) -> None:
    with toy_service(ServiceSettings()) as service, pytest.raises(NotAVerifier, match=r"TLS .*give http://"):
        asyncio.run(WebSocketLink(service.url.replace("http", "https")).open())
    settings = ServiceSettings(tls=tls_context(certificates["cert"], certificates["key"]))
    with toy_service(settings) as service, pytest.raises(LinkLost, match="if it speaks TLS give https://"):
        asyncio.run(WebSocketLink(service.url.replace("https", "http")).open())


def test_client_certificates_are_a_gate_of_their_own(certificates: dict[str, Path]) -> None:
    tls = tls_context(certificates["cert"], certificates["key"], certificates["ca"])
    with toy_service(ServiceSettings(tls=tls)) as service:
        got, _ = collect(WebSocketLink(service.url, tls=device(certificates, "client")), None, REQUEST)
        assert [token.token_id for token in got] == target_alone()
        for certificate in (None, "stranger"):
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{service.url}/healthz", verify=device(certificates, certificate))
            with pytest.raises(LinkLost, match="--client-cert"):
                asyncio.run(WebSocketLink(service.url, tls=device(certificates, certificate)).open())
        assert httpx.get(f"{service.url}/healthz", verify=device(certificates, "client")).status_code == 200


def test_tls_files_that_cannot_be_used(certificates: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="TLS files"):
        tls_context(certificates["cert"], certificates["client"])
    with pytest.raises(InvalidParameter, match="TLS files"):
        tls_context(tmp_path / "none.pem", certificates["key"])


def test_old_versions_of_tls_are_not_spoken(certificates: dict[str, Path]) -> None:
    assert tls_context(certificates["cert"], certificates["key"]).minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_handshake_that_does_not_come_is_closed_and_holds_nobody_up(certificates: dict[str, Path]) -> None:
    settings = ServiceSettings(tls=tls_context(certificates["cert"], certificates["key"]), header_s=0.5)
    with toy_service(settings) as service, service.plain() as silent, service.plain() as slow:
        slow.sendall(b"\x16\x03\x01")
        assert httpx.get(f"{service.url}/healthz", verify=device(certificates)).status_code == 200
        assert answer(silent) == answer(slow) == b""
