"""Who is let in. Every request and every socket passes here first; what is not let in reaches no door.

With tokens: whoever shows one that is live, in a header or, as a web page's socket must, as a subprotocol. Without:
everybody, but only under a name of this machine and from no web page but the service's own, since a browser on it can
be made to call here. Knows nothing of what the doors do or how much anybody may use.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud_verifier.refusal import Refuse, refuse
from cloud_verifier.settings import DoorSettings
from outrider.errors import Forbidden, Refused, Unauthorized, WrongContentType

__all__ = ["ANONYMOUS", "OPEN_PATHS", "Gate", "credential_of", "is_own_name", "is_own_origin"]

ANONYMOUS = ""  # the credential of whoever comes where there are no tokens
OPEN_PATHS = frozenset({"/healthz"})  # says only that somebody is alive
TOKEN_PREFIX = "outrider.token."  # noqa: S105  of the subprotocol that shows a token: a page can set no header there
BODY_TYPES = frozenset({b"application/json", b"application/msgpack"})  # a web page cannot send these unasked
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


class Gate:
    """ASGI middleware, the first that may refuse, in the words of `refuse`.

    `page` are the addresses of the service's own web page, where it has one: open to all, as there is nothing in them.
    """

    def __init__(
        self, app: ASGIApp, settings: DoorSettings, refuse: Refuse = refuse, page: Collection[str] = ()
    ) -> None:
        self._app = app
        self._refuse = refuse
        self._tokens = settings.tokens
        self._is_public = settings.is_public
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                self._admit(scope)
            except Refused as error:
                await self._refuse(error, scope, send)
                return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Names the credential in the scope. Raises Refused."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._tokens is None:
            if not self._is_public:
                _check_host(_values(headers, b"host"))
            if any(_values(headers, b"origin")) and not (self._page and is_own_origin(scope)):
                raise Forbidden("web pages are not served; use a program, or have the service ask for tokens")
        if scope["type"] == "http" and (scope["path"] in OPEN_PATHS or scope["path"] in self._page):
            return
        credential = ANONYMOUS
        if self._tokens is not None:
            credential = self._tokens.credential_of(_bearer(headers) or _offered(scope)) or ""
            if not credential:
                raise Unauthorized("no valid token was shown; send one as Authorization: Bearer TOKEN")
        if scope["type"] == "http" and scope["method"] == "POST":
            _check_type(_values(headers, b"content-type"))
        scope.setdefault("state", {})["credential"] = credential


async def credential_of(connection: HTTPConnection) -> str:
    """The credential a request came with, for doors to depend on. Raises Unauthorized where no gate let it in."""
    credential = connection.scope.get("state", {}).get("credential")
    if credential is None:
        raise Unauthorized("the request passed no gate; the service is put together wrongly")
    return str(credential)


def is_own_origin(scope: Scope) -> bool:
    """Whether a web page that asks was loaded from here, under a name of this machine."""
    hosts, origins = (_values(scope["headers"], name) for name in (b"host", b"origin"))
    scheme = str(scope["scheme"]).replace("ws", "http")
    try:
        _check_host(hosts)
    except Forbidden:
        return False
    return origins == [b"%s://%s" % (scheme.encode(), hosts[0])]


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value.strip() for key, value in headers if key.lower() == name]


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The token shown, as bytes; empty for none, several or another scheme."""
    values = _values(headers, b"authorization")
    scheme, _, secret = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    return secret.strip() if scheme.lower() == b"bearer" else b""


def _offered(scope: Scope) -> bytes:
    """The token that a socket's handshake offers as a subprotocol; empty for none or several."""
    offered: list[str] = scope.get("subprotocols", [])
    tokens = [name.removeprefix(TOKEN_PREFIX) for name in offered if name.startswith(TOKEN_PREFIX)]
    return tokens[0].encode() if len(tokens) == 1 else b""


def _check_host(values: list[bytes]) -> None:
    """A page of another site that had its name resolve to this machine still names that site."""
    match = HOST.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
    if match is None or not is_own_name(match["v6"] or match["name"]):
        raise Forbidden("the request names another host; call this service as localhost, 127.0.0.1 or [::1]")


def is_own_name(name: str) -> bool:
    """A loopback address, or a name of one."""
    try:
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check_type(values: list[bytes]) -> None:
    if len(values) != 1 or values[0].partition(b";")[0].strip().lower() not in BODY_TYPES:
        raise WrongContentType("the body's type is not one of ours; send application/json or application/msgpack")
